"""A sweep file's arms as planned runs. A setting that arms, studies or tables share is one run for each seed."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from selfsup.errors import SpecError
from selfsup.layers import located
from selfsup.pipelines.planned import PlannedRun
from selfsup.pipelines.planning import plan
from selfsup.stage import digest
from selfsup.sweeps.spec.design import Design, Setting
from selfsup.sweeps.spec.study import Arm, Study
from selfsup.sweeps.spec.sweep import Sweep
from selfsup.sweeps.spec.sweepfile import SweepFile


def expand(it: SweepFile, home: Path) -> tuple[Sweep, dict[str, PlannedRun]]:
    """The sweep, and its runs by id, baselines first. Builds bundled data that is missing; starts nothing.

    Raises DataError and SpecError as `plan` does; SpecError where two arms would be the same runs.
    """
    assert it.kind != "search", "a search has trials, not arms"
    held = [[_runs(setting, home) for setting in study.settings] for study in it.designs]
    floors = _floors(it, [runs[0][0] for runs in held])
    studies = tuple(_study(*parts) for parts in zip(it.designs, held, floors, strict=True))
    runs = [run for parts in held for below, own in parts for run in (*below, *own)]
    seeds = tuple(dict.fromkeys(seed for study in it.designs for seed in study.default.seeds))
    planned = {run.id: run for run in sorted(runs, key=lambda run: run.pretrain is not None)}
    sweep = Sweep(
        name=it.name,
        question=it.question,
        spec=str(it.path),
        digest=_digest(studies, it.metrics),
        seeds=seeds,
        metrics=it.metrics,
        studies=studies,
        overrides=it.overrides,
        primary=it.primary,
    )
    return sweep, planned


def _runs(setting: Setting, home: Path) -> tuple[list[PlannedRun], list[PlannedRun]]:
    """Of one arm: its baselines, which are those of the default, and its own."""
    wanted = setting.spec.baselines and not setting.changed
    runs = plan(setting.spec.model_copy(update={"baselines": wanted}), home)
    own = [run for run in runs if run.run.method == setting.spec.method]
    return [run for run in runs if run not in own], own


def _study(study: Design, runs: Sequence[tuple[list[PlannedRun], list[PlannedRun]]], floor: tuple[Arm, ...]) -> Study:
    arms: list[Arm] = []
    for setting, (_, own) in zip(study.settings, runs, strict=True):
        ids = {run.run.seed: run.id for run in own}
        if same := [arm.name for arm in arms if arm.ids == ids]:
            alike = f"in {study.name}, {setting.name} and {same[0]} are the same runs, since"
            told = f"{' and '.join(setting.changed)} changes nothing of {setting.spec.method}; leave it out"
            with located(setting.spec.root):
                raise SpecError(f"{alike} {told}", *setting.changed)
        arms.append(Arm(setting.name, setting.values, setting.changed, ids))
    method = study.default.method
    return Study(study.name, method, study.factors, study.grid, tuple(arms), study.expected, study.source, floor)


def _floors(it: SweepFile, below: Iterable[Sequence[PlannedRun]]) -> list[tuple[Arm, ...]]:
    """The baselines of each study; where its data or encoder differ from earlier ones', they are others, and say so."""
    arms: dict[str, Arm] = {}
    backbones: set[tuple[str, str]] = set()
    floors = []
    for study, runs in zip(it.designs, below, strict=True):
        floor = []
        for method in dict.fromkeys(run.run.method for run in runs):
            own = [run for run in runs if run.run.method == method]
            ids, label, backbone = {run.run.seed: run.id for run in own}, own[0].label, own[0].run.backbone.name
            arm = next((arm for arm in arms.values() if arm.ids == ids), None)
            if arm is None:
                apart = study.name if (label, backbone) in backbones else backbone
                name = f"{label} ({apart})" if label in arms else label
                arm = arms[name] = Arm(name, {}, {"method": method}, ids)
            backbones.add((label, backbone))
            floor.append(arm)
        floors.append(tuple(floor))
    return floors


def _digest(studies: Sequence[Study], metrics: Sequence[str]) -> str:
    arms = {study.name: {arm.name: arm.ids for arm in study.arms} for study in studies}
    return digest({"arms": arms, "metrics": metrics})

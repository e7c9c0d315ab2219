"""A sweep file's arms as planned runs. A setting shared by arms, studies or tables is one run per seed."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from selfsup import outside
from selfsup.errors import SpecError
from selfsup.layers import located
from selfsup.pipelines.planned import PlannedRun
from selfsup.pipelines.planning import plan
from selfsup.stage import digest
from selfsup.sweeps.spec.design import Design, Setting
from selfsup.sweeps.spec.study import Arm, Study
from selfsup.sweeps.spec.sweep import Sweep
from selfsup.sweeps.spec.sweepfile import SweepFile


def expand(sweep_file: SweepFile, home: Path) -> tuple[Sweep, dict[str, PlannedRun]]:
    """Plan a sweep: -> the sweep, and its runs by id, baselines first. Starts nothing, but builds missing bundled data.

    Raises DataError and SpecError as `plan` does; SpecError where two arms would be the same runs.
    """
    assert sweep_file.kind != "search", "a search has trials, not arms"
    runs_of_studies = [[_runs(setting, home) for setting in study.settings] for study in sweep_file.designs]
    floors = _floors(sweep_file, [runs[0][0] for runs in runs_of_studies])
    studies = tuple(_study(*parts) for parts in zip(sweep_file.designs, runs_of_studies, floors, strict=True))
    runs = [run for parts in runs_of_studies for baselines, arm_runs in parts for run in (*baselines, *arm_runs)]
    seeds = tuple(dict.fromkeys(seed for study in sweep_file.designs for seed in study.default.seeds))
    planned = {run.id: run for run in sorted(runs, key=lambda run: run.pretrain is not None)}
    sweep = Sweep(
        name=sweep_file.name,
        question=sweep_file.question,
        spec=str(sweep_file.path),
        digest=_digest(studies, tuple(sweep_file.metrics)),
        seeds=seeds,
        metrics=tuple(sweep_file.metrics),
        scales=sweep_file.metrics,
        studies=studies,
        overrides=sweep_file.overrides,
        primary=sweep_file.primary,
    )
    return sweep, planned


def _runs(setting: Setting, home: Path) -> tuple[list[PlannedRun], list[PlannedRun]]:
    """-> an arm's baselines, which only the default has, and its own runs."""
    with_baselines = setting.spec.baselines and not setting.changed
    runs = plan(setting.spec.model_copy(update={"baselines": with_baselines}), home)
    own = [run for run in runs if run.run.method == setting.spec.method]
    return [run for run in runs if run not in own], own


def _study(study: Design, runs: Sequence[tuple[list[PlannedRun], list[PlannedRun]]], floor: tuple[Arm, ...]) -> Study:
    arms: list[Arm] = []
    for setting, (_, arm_runs) in zip(study.settings, runs, strict=True):
        ids = {run.run.seed: run.id for run in arm_runs}
        if equal := [arm.name for arm in arms if arm.ids == ids]:
            subject = f"in {study.name}, {setting.name} and {equal[0]} are the same runs, since"
            advice = (
                f"{' and '.join(setting.changed)} changes nothing of {outside.short(setting.spec.method)}; leave it out"
            )
            with located(setting.spec.root):
                raise SpecError(f"{subject} {advice}", *setting.changed)
        arms.append(Arm(setting.name, setting.values, setting.changed, ids))
    method = outside.short(study.default.method)
    return Study(study.name, method, study.factors, study.grid, tuple(arms), study.expected, study.source, floor)


def _floors(sweep_file: SweepFile, baselines: Iterable[Sequence[PlannedRun]]) -> list[tuple[Arm, ...]]:
    """Return each study's baselines, shared by id; further ones are named after what differs: study or encoder."""
    arms: dict[str, Arm] = {}
    backbones: set[tuple[str, str]] = set()
    floors = []
    for study, runs in zip(sweep_file.designs, baselines, strict=True):
        floor = []
        for method in dict.fromkeys(run.run.method for run in runs):
            own = [run for run in runs if run.run.method == method]
            ids, label, backbone = {run.run.seed: run.id for run in own}, own[0].label, own[0].run.backbone.name
            arm = next((arm for arm in arms.values() if arm.ids == ids), None)
            if arm is None:
                distinction = study.name if (label, backbone) in backbones else backbone
                name = f"{label} ({distinction})" if label in arms else label
                arm = arms[name] = Arm(name, {}, {"method": method}, ids)
            backbones.add((label, backbone))
            floor.append(arm)
        floors.append(tuple(floor))
    return floors


def _digest(studies: Sequence[Study], metrics: Sequence[str]) -> str:
    arms = {study.name: {arm.name: arm.ids for arm in study.arms} for study in studies}
    return digest({"arms": arms, "metrics": metrics})

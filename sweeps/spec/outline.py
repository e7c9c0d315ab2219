"""The plan of a sweep as `selfsup plan` prints it: arms, runs, finished stages, remaining training and its hours."""

import json
import statistics
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from selfsup import origin
from selfsup.errors import CheckpointError
from selfsup.metrics_log import tail
from selfsup.pipelines.summary import RunSummary, Training, sharing, summarize
from selfsup.progress import several
from selfsup.stage import read_done, read_json
from selfsup.sweeps.spec.axes import text
from selfsup.sweeps.spec.search import AT_RANDOM, Search
from selfsup.sweeps.spec.study import Factor, Study
from selfsup.sweeps.spec.sweep import Sweep

if TYPE_CHECKING:
    from selfsup.pipelines.planned import PlannedRun
    from selfsup.sweeps.spec.sweepfile import SweepFile


def describe(sweep: Sweep, planned: "Mapping[str, PlannedRun]") -> str:
    """Write a sweep as text. planned: its runs by id."""
    return written(sweep, list(map(summarize, planned.values())), warnings(sweep, planned))


def written(sweep: Sweep, runs: Sequence[RunSummary], warnings: Mapping[str, Sequence[str]]) -> str:
    """Write a sweep as text. warnings: of the function of that name."""
    lines = [": ".join(part for part in (sweep.name, sweep.question) if part), *_data(runs)]
    for study in sweep.studies:
        lines += [*_study(study), *warnings[study.name]]
    if sweep.baselines:
        lines.append(f"baselines: {', '.join(arm.name for arm in sweep.baselines)}")
    lines.append(f"{several(len(runs), 'run')}; stages that runs share are counted, and run, once:")
    lines += [f"  {line}" for line in _stages(runs)]
    lines += _left(runs)
    return "\n".join([*lines, f"digest of this plan: {sweep.digest}"])


def describe_search(sweep_file: "SweepFile", home: Path) -> str:
    """Write a search as text: its space, its method, its budget, and how its best are confirmed."""
    from selfsup.pipelines.planning import plan

    assert sweep_file.search is not None
    search = sweep_file.search
    lines = [": ".join(part for part in (sweep_file.name, sweep_file.question) if part)]
    runs = [plan(study.default.model_copy(update={"baselines": False}), home)[0] for study in sweep_file.designs]
    lines += _data(map(summarize, runs))
    for study, default in zip(sweep_file.designs, runs, strict=True):
        lines += [
            study.name,
            *(f"  {dimension.path:<24} {dimension}" for dimension in study.space),
            *cautions([default]),
        ]
    longest = max((run.own for run in map(summarize, runs) if run.own), key=lambda training: training.samples)
    scheduler = "" if search.scheduler == "none" else f", stopped early by {search.scheduler} on {search.ranking[0]}"
    chance = AT_RANDOM.get(search.sampler, 0)
    first = f" (the first {chance} at random)" if chance > 1 else ""
    lines.append(f"for {' and '.join(search.metric)}, by {search.sampler}{first}{scheduler}; at most {search.budget}")
    lines += _unjudged(search, runs)
    lines.append(f"from seed {search.seed}: {search.repeats(1)}")
    together = longest.samples * search.trials
    lines.append(f"{longest.samples:,} samples a trial, {together:,} together, if all run to their end:")
    lines += _hours([longest], times=search.trials)
    which = f"of the Pareto front up to {search.finalists}" if len(search.objectives) > 1 else "the best"
    lines.append(f"then {which}, and the default, from {several(search.confirm, 'fresh seed')}")
    return "\n".join(lines)


def _unjudged(search: Search, runs: "Iterable[PlannedRun]") -> Iterator[str]:
    """Yield where numbers that a scheduler ranks by come too seldom for it."""
    if search.scheduler != "none":
        by_evaluation = search.ranking[0].startswith("eval/")
        gaps = {(run.due.step if by_evaluation else run.run.train.log_every, run.steps) for run in runs}
        yield from sorted({f"  beware  {text}" for gap, steps in gaps if (text := search.unjudged(gap, steps))})


def _data(runs: Iterable[RunSummary]) -> Iterator[str]:
    yield from dict.fromkeys(f"data: {run.data}" for run in runs)


def _study(study: Study) -> Iterator[str]:
    note = "; [ ] is the default" if study.factors or study.grid else ""
    yield f"{study.name}: {several(len(study.arms), 'arm')} x {several(len(study.arms[0].ids), 'seed')}{note}"
    for kind, factors in (("ablate", study.factors), ("grid", study.grid)):
        yield from (f"  {kind:<7} {factor.path:<24} {_values(factor)}" for factor in factors)


def warnings(sweep: Sweep, planned: "Mapping[str, PlannedRun]") -> dict[str, list[str]]:
    """-> study: the warnings of its arms. planned: the sweep's runs by id."""
    return {
        study.name: cautions(planned[next(iter(arm.ids.values()))] for arm in study.arms) for study in sweep.studies
    }


def cautions(runs: "Iterable[PlannedRun]") -> list[str]:
    """Return a line for each warning about the trainings of runs, once."""
    from selfsup.layers import located
    from selfsup.pipelines import cost

    lines: dict[str, None] = {}
    for run in runs:
        if run.pretrain:
            with located(run.root):
                lines |= dict.fromkeys(f"  beware  {text}" for text in cost.cautions(run.run, run.info))
    return list(lines)


def _values(factor: Factor) -> str:
    return "  ".join(f"[{text(value)}]" if value == factor.default else text(value) for value in factor.values)


def _stages(runs: Sequence[RunSummary]) -> Iterator[str]:
    unique = {stage.key: stage for run in reversed(runs) for stage in run.stages}
    kinds = dict.fromkeys(stage.kind for stage in unique.values())
    width = max(map(len, kinds), default=0)
    for kind in kinds:
        stages = [stage for stage in unique.values() if stage.kind == kind]
        yield f"{kind:<{width}} {len(stages):>5,}, {sum(stage.done for stage in stages):,} done"
    yield from origin.describe(unique.values(), origin.changes_by_key(unique.values()))


def _left(runs: Sequence[RunSummary]) -> Iterator[str]:
    """Yield the training that remains, that before others included, and its hours."""
    trainings = (training for run in runs for training in run.trainings)
    left = list({training.stage.key: training for training in trainings if not training.stage.done}.values())
    steps, samples = (sum(numbers) for numbers in zip((0, 0), *((one.steps, one.samples) for one in left), strict=True))
    yield f"left to train: {several(len(left), 'run')}, {steps:,} steps, {samples:,} samples"
    yield from sharing(left)
    if left:
        yield from _hours(left)


def _hours(left: Sequence[Training], times: int = 1) -> Iterator[str]:
    """Yield an estimate of hours. times: that each run is repeated."""
    speeds = measured(left[0].stage.home)
    if unknown := sorted({run.method for run in left if kind_of(run) not in speeds}):
        yield f"  no run of this kind measured yet, for {' and '.join(unknown)}: no estimate of hours"
        return
    run_times = [_seconds(run, speeds[kind_of(run)]) for run in left]
    low, middle, high = (times * sum(seconds) / 3600 for seconds in zip(*run_times, strict=True))
    scale, unit = (1, "hours") if middle >= 1 else (60, "minutes")
    span = f"{middle * scale:.2g} {unit} of training ({low * scale:.2g} to {high * scale:.2g})"
    yield f"  {span}, one run after another, as such runs took here"
    gpus = [training.gpus for training in left]
    if any(gpus):
        hours = times * sum(middle * number for (_, middle, _), number in zip(run_times, gpus, strict=True)) / 3600
        yield f"  {hours:.2g} GPU-hours"


Kind = tuple[str, str]  # method and encoder, which settle most of a run's speed


def kind_of(training: Training) -> Kind:
    return _kind(training.method, training.stage.resolved["backbone"])


def measured(home: Path) -> dict[Kind, list[tuple[float, float]]]:
    """-> kind: (seconds before the first step, samples per second) of every finished pretraining."""
    measurements: defaultdict[Kind, list[tuple[float, float]]] = defaultdict(list)
    for done in sorted(home.glob("stages/pretrain-*/done.json")):
        with suppress(CheckpointError):  # of an older version, or damaged: no reason to plan nothing
            settings = read_json(done.parent / "stage.json", method=str, backbone=dict)
            last = tail(done.parent / "metrics.jsonl")
            if last and (speed := last.values.get("samples_per_second")):
                start = read_done(done)["result"].get("start_seconds", 0.0)
                measurements[_kind(settings["method"], settings["backbone"])].append((start, speed))
    return dict(measurements)


def _kind(method: str, backbone: object) -> Kind:
    return method, json.dumps(backbone, sort_keys=True)


def _seconds(training: Training, speeds: Sequence[tuple[float, float]]) -> tuple[float, float, float]:
    """-> shortest, median and longest training time, at the speeds and start-up times of such runs."""
    times = [start + training.samples / speed for start, speed in speeds]
    return min(times), statistics.median(times), max(times)

"""The identity of a search, and its confirmation: its best beside the default, from seeds that it has not used."""

from dataclasses import replace
from itertools import count, islice
from pathlib import Path

from selfsup.knob import SEEDS
from selfsup.metric_names import former_name
from selfsup.pipelines.planned import PlannedRun
from selfsup.pipelines.planning import plan
from selfsup.stage import digest
from selfsup.sweeps.spec.axes import value_at
from selfsup.sweeps.spec.sweep import Sweep
from selfsup.sweeps.spec.sweepfile import SweepFile
from selfsup.sweeps.spec.trials import SearchResult, Trial


def search_sweep(
    sweep_file: SweepFile, trials: tuple[Trial, ...], home: Path, *, over: bool = False, sessions: int = 1
) -> Sweep:
    """Return a search as a sweep without arms, as its report shows it before anything is confirmed."""
    assert sweep_file.search is not None
    space = {design.name: design.space for design in sweep_file.designs}
    defaults = {
        design.name: {dimension.path: value_at(design.default, dimension.path) for dimension in design.space}
        for design in sweep_file.designs
    }
    search_result = SearchResult(sweep_file.search, space, defaults, trials, over, sessions)
    return Sweep(
        name=sweep_file.name,
        question=sweep_file.question,
        spec=str(sweep_file.path),
        digest=search_key(sweep_file, home),
        seeds=fresh_seeds(sweep_file),
        metrics=tuple(sweep_file.metrics),
        scales=sweep_file.metrics,
        studies=(),
        search=search_result,
        overrides=sweep_file.overrides,
        primary=sweep_file.primary,
    )


def search_key(sweep_file: SweepFile, home: Path) -> str:
    """Return the digest of a search: of space, goal, sampler, seed and defaults, but not of its budget."""
    assert sweep_file.search is not None
    specs = [design.default.model_copy(update={"baselines": False}) for design in sweep_file.designs]
    defaults = [plan(spec, home)[0].id for spec in specs]
    space = [(design.name, *(repr(dimension) for dimension in design.space)) for design in sweep_file.designs]
    goal = [f"{direction} {former_name(metric)}" for metric, direction in sweep_file.search.objectives.items()]
    return digest([defaults, space, goal, sweep_file.search.sampler, sweep_file.search.seed])


def fresh_seeds(sweep_file: SweepFile) -> tuple[int, ...]:
    """Return seeds that no trial used."""
    assert sweep_file.search is not None
    used = {seed for design in sweep_file.designs for seed in design.default.seeds}
    unused = (seed for number in count(max(used) + 1) if (seed := number % SEEDS) not in used)
    return tuple(islice(unused, sweep_file.search.confirm))


def plan_again(sweep_file: SweepFile, trial: Trial, home: Path) -> PlannedRun:
    """Plan the run of a trial again."""
    design = next(design for design in sweep_file.designs if design.name == trial.study)
    spec = design.trial(trial.values)
    return plan(spec.model_copy(update={"baselines": False, "seeds": (trial.result.seed,)}), home)[0]


def confirmation(sweep_file: SweepFile, search_result: SearchResult) -> SweepFile:
    """Return the ablation that confirms a search: the finalists, and the default of every study that has one."""
    designs = []
    for design in sweep_file.designs:
        finalists = {trial.name: trial.values for trial in search_result.finalists if trial.study == design.name}
        designs += [design.beside(finalists, fresh_seeds(sweep_file))] if finalists else []
    return replace(sweep_file, designs=tuple(designs), search=None)

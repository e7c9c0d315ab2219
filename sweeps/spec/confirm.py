"""What a search is known by, and what it ends with: its best beside the default, from seeds that it has not seen."""

from dataclasses import replace
from itertools import count, islice
from pathlib import Path

from selfsup.knob import SEEDS
from selfsup.pipelines.planned import PlannedRun
from selfsup.pipelines.planning import plan
from selfsup.stage import digest
from selfsup.sweeps.spec.axes import value_at
from selfsup.sweeps.spec.sweep import Sweep
from selfsup.sweeps.spec.sweepfile import SweepFile
from selfsup.sweeps.spec.trials import Searched, Trial


def without_arms(
    it: SweepFile, trials: tuple[Trial, ...], home: Path, *, over: bool = False, sessions: int = 1
) -> Sweep:
    """A search as its report sees it before there is anything to confirm."""
    assert it.search is not None
    space = {design.name: design.space for design in it.designs}
    defaults = {
        design.name: {line.path: value_at(design.default, line.path) for line in design.space} for design in it.designs
    }
    searched = Searched(it.search, space, defaults, trials, over, sessions)
    return Sweep(
        name=it.name,
        question=it.question,
        spec=str(it.path),
        digest=key(it, home),
        seeds=fresh(it),
        metrics=it.metrics,
        studies=(),
        search=searched,
        overrides=it.overrides,
        primary=it.primary,
    )


def key(it: SweepFile, home: Path) -> str:
    """Another space, goal, seed or default is another search; more trials or more time are the same one."""
    assert it.search is not None
    bare = [design.default.model_copy(update={"baselines": False}) for design in it.designs]
    defaults = [plan(spec, home)[0].id for spec in bare]
    space = [(design.name, *(repr(line) for line in design.space)) for design in it.designs]
    return digest([defaults, space, it.search.metric, it.search.sampler, it.search.seed])


def fresh(it: SweepFile) -> tuple[int, ...]:
    """Seeds that no trial had."""
    assert it.search is not None
    used = {seed for design in it.designs for seed in design.default.seeds}
    unused = (seed for number in count(max(used) + 1) if (seed := number % SEEDS) not in used)
    return tuple(islice(unused, it.search.confirm))


def again(it: SweepFile, trial: Trial, home: Path) -> PlannedRun:
    """The run that a trial was."""
    design = next(design for design in it.designs if design.name == trial.study)
    spec = design.trial(trial.values)
    return plan(spec.model_copy(update={"baselines": False, "seeds": (trial.result.seed,)}), home)[0]


def confirmation(it: SweepFile, searched: Searched) -> SweepFile:
    """An ablation: the finalists, and the default of every study that has one."""
    designs = []
    for design in it.designs:
        own = {trial.name: trial.values for trial in searched.finalists if trial.study == design.name}
        designs += [design.beside(own, fresh(it))] if own else []
    return replace(it, designs=tuple(designs), search=None)

"""Optuna proposes trials and a scheduler stops those that fall behind: what Tune is given for a search."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import optuna
from optuna.samplers import BaseSampler, CmaEsSampler, GPSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend
from ray.tune.schedulers import AsyncHyperBandScheduler, MedianStoppingRule, TrialScheduler
from ray.tune.search.optuna import OptunaSearch

from selfsup.errors import SelfsupError
from selfsup.knob import Choice
from selfsup.planning import Planned, digest, plan
from selfsup.sweeps.trial import STEP
from selfsup.sweepspec.design import Design
from selfsup.sweepspec.search import Dimension, Search
from selfsup.sweepspec.sweepfile import SweepFile

METHOD = "study"  # of a trial's configuration, where a search has several
RUNGS = 4  # of ASHA: each a factor of three longer than the one before


@dataclass(frozen=True)
class Proposed:
    """What a trial's configuration stands for: the study it names, at the values that were drawn."""

    designs: Mapping[str, Design]
    home: Path

    def of(self, config: Mapping[str, Any]) -> Planned:
        """Raises SpecError for values that are wrong together."""
        design = self.designs[config.get(METHOD, next(iter(self.designs)))]
        values = {line.path: config[name(self.designs, design, line)] for line in design.space}
        spec = design.trial(values).model_copy(update={"baselines": False})
        return plan(spec.model_copy(update={"seeds": spec.seeds[:1]}), self.home)[0]

    def defaults(self) -> list[Planned]:
        """One run of each study, such as a trial might be."""
        specs = [design.default.model_copy(update={"baselines": False}) for design in self.designs.values()]
        return [plan(spec, self.home)[0] for spec in specs]


def proposed(it: SweepFile, home: Path) -> Proposed:
    return Proposed({design.name: design for design in it.designs}, home)


def name(designs: Mapping[str, Design], design: Design, line: Dimension) -> str:
    """Of a value in a trial's configuration. Studies are drawn from apart, even for a knob they share."""
    return line.path if len(designs) == 1 else f"{design.name}.{line.path}"


def storage(home: Path, sweep: str) -> JournalStorage:
    """Every trial that was ever told of this search: what was learnt survives a kill."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    path = home / "searches" / f"{sweep}.journal"
    path.parent.mkdir(parents=True, exist_ok=True)
    return JournalStorage(JournalFileBackend(str(path)))


def study(it: SweepFile) -> str:
    """What Optuna knows the search by: another space or another goal is another one."""
    assert it.search is not None
    space = [(design.name, *(repr(line) for line in design.space)) for design in it.designs]
    return f"{it.name}-{digest([space, it.search.metric, it.search.sampler, it.search.seed])}"


def finished(held: BaseStorage, study: str) -> int:
    """How many trials have told their result."""
    known = {summary.study_name for summary in optuna.get_all_study_summaries(held)}
    if study not in known:
        return 0
    trials = optuna.load_study(study_name=study, storage=held).get_trials(deepcopy=False)
    return sum(trial.state.is_finished() for trial in trials)


class Finals(OptunaSearch):
    """Told of results only: an evaluation comes with a trial's last report, where Tune's own asks for it in each."""

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        pass

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        wanted = self.metric if isinstance(self.metric, list) else [self.metric]
        whole = result is not None and all(metric in result for metric in wanted)
        super().on_trial_complete(trial_id, result if whole else None, error)


def searcher(search: Search, designs: Mapping[str, Design], held: BaseStorage, study: str) -> Finals:
    metrics, modes = list(search.objectives), list(search.objectives.values())
    several = len(metrics) > 1
    return Finals(
        space=Space(designs),
        metric=metrics if several else metrics[0],
        mode=modes if several else modes[0],
        sampler=_sampler(search),
        storage=held,
        study_name=study,
    )


def scheduler(search: Search, steps: int) -> TrialScheduler | None:
    """In our own steps: Tune's count of reports starts anew with every restart."""
    if search.scheduler == "none":
        return None
    metric, mode = search.ranking
    grace = max(1, steps // 3 ** (RUNGS - 1))
    if search.scheduler == "median":
        return MedianStoppingRule(time_attr=STEP, metric=metric, mode=mode, grace_period=grace)
    return AsyncHyperBandScheduler(
        time_attr=STEP, metric=metric, mode=mode, max_t=steps + 1, grace_period=grace, reduction_factor=3
    )


class Space:
    """Draws the values of a trial. Conditional: only the knobs of the study that was drawn."""

    def __init__(self, designs: Mapping[str, Design]) -> None:
        self._designs = designs

    def __reduce__(self) -> tuple[Any, ...]:
        return Space, ({},)  # Tune pickles it, to restore what is never restored

    def __call__(self, trial: optuna.Trial) -> None:
        first, *others = self._designs
        chosen = trial.suggest_categorical(METHOD, [first, *others]) if others else first
        for line in self._designs[chosen].space:
            _suggest(trial, name(self._designs, self._designs[chosen], line), line)


def _suggest(trial: optuna.Trial, named: str, line: Dimension) -> None:
    held = line.range
    if isinstance(held, Choice):
        trial.suggest_categorical(named, list(held.values))
    elif line.integer:
        trial.suggest_int(named, int(held.low), int(held.high), log=held.log)
    else:
        trial.suggest_float(named, held.low, held.high, log=held.log)


def _sampler(search: Search) -> BaseSampler:
    match search.sampler:
        case "random":
            return RandomSampler(search.seed)
        case "tpe":
            return TPESampler(seed=search.seed, constant_liar=True)
        case "gp":
            return GPSampler(seed=search.seed)
        case "cmaes":
            return CmaEsSampler(seed=search.seed)
        case "nsga2":
            return NSGAIISampler(seed=search.seed)


def best(held: BaseStorage, study: str) -> dict[str, Any]:
    """The configuration of the best trial; with several metrics, of the first that no other beats in all of them."""
    found = optuna.load_study(study_name=study, storage=held)
    tops = found.best_trials
    if not tops:
        raise SelfsupError(f"{study}: no trial came to a result; see `selfsup ui`, or the lines above, for why")
    return dict(tops[0].params)


def winner(it: SweepFile, config: Mapping[str, Any], home: Path) -> SweepFile:
    """The winner beside its study's default, from seeds that the search has not seen: an ablation of two arms."""
    assert it.search is not None
    plans = proposed(it, home)
    design = plans.designs[config.get(METHOD, next(iter(plans.designs)))]
    values = {line.path: config[name(plans.designs, design, line)] for line in design.space}
    used = max(seed for seed in design.default.seeds)
    fresh = tuple(range(used + 1, used + 1 + it.search.confirm))
    return replace(it, designs=(design.against(values, fresh),), search=None)

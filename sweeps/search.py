"""Optuna proposes trials and a scheduler stops those that fall behind: what Tune is given for a search."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import optuna
from optuna.samplers import BaseSampler, CmaEsSampler, GPSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.trial import TrialState
from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, MedianStoppingRule, TrialScheduler
from ray.tune.search.optuna import OptunaSearch

from selfsup.errors import SpecError
from selfsup.knob import Choice
from selfsup.planning import Planned, plan, usual_feeder
from selfsup.sections import Feeder
from selfsup.spool import records
from selfsup.sweeps.journal import Journal
from selfsup.sweeps.trial import ENDED, SAMPLES, STEP
from selfsup.sweepspec.design import Design
from selfsup.sweepspec.search import Search
from selfsup.sweepspec.space import Dimension

STUDY = "study"  # of a trial's configuration, by number, where a search has several
RUNGS = 4  # of ASHA: each a factor of three longer than the one before
DRAWS = 200  # in a row that may be refused


@dataclass(frozen=True)
class Proposed:
    """What a trial's configuration stands for: a study, and a value of each of its dimensions."""

    designs: Sequence[Design]
    home: Path
    usual: Feeder = field(default_factory=usual_feeder)

    def of(self, config: Mapping[str, Any]) -> Planned:
        """Raises SpecError for values that are wrong together."""
        design, values = self.drawn(config)
        return self._planned(design.trial(values))

    def drawn(self, config: Mapping[str, Any]) -> tuple[Design, dict[str, Any]]:
        number = config.get(STUDY, 0)
        design = self.designs[number]
        return design, {line.path: _value(line, config[f"{number}.{line.path}"]) for line in design.space}

    def defaults(self) -> list[Planned]:
        """One run of each study, such as a trial might be."""
        return [self._planned(design.default) for design in self.designs]

    def _planned(self, spec: Any) -> Planned:
        [each] = plan(spec.model_copy(update={"baselines": False, "seeds": spec.seeds[:1]}), self.home)
        return replace(each, usual=self.usual)


def _value(line: Dimension, drawn: Any) -> Any:
    """A choice is drawn by its place: Optuna takes no lists and no mappings."""
    return line.range.values[drawn] if isinstance(line.range, Choice) else drawn


class Searcher(OptunaSearch):
    """Told of results only: an evaluation comes with a trial's last report, where Tune's own asks for it in each.

    propose: called with each configuration before it becomes a trial; raises SpecError to refuse it.
    """

    def __init__(self, search: Search, designs: Sequence[Design], journal: Journal, propose: Callable[..., object]):
        metrics, modes = list(search.objectives), list(search.objectives.values())
        several = len(metrics) > 1
        self._draw = Space(designs)
        super().__init__(
            space=self._draw,
            metric=metrics if several else metrics[0],
            mode=modes if several else modes[0],
            sampler=_sampler(search, search.seed + len(journal)),  # what goes on must not draw the same again
            storage=journal.storage,
            study_name=journal.name,
        )
        self._propose = propose

    def suggest(self, trial_id: str) -> dict[str, Any]:
        refused: SpecError | None = None
        for _ in range(DRAWS):
            assert self._ot_study
            drawn: optuna.Trial = self._ot_study.ask()
            self._draw(drawn)
            try:
                self._propose(drawn.params)
            except SpecError as error:
                refused = error
                self._ot_study.tell(drawn, state=TrialState.FAIL)
            else:
                self._ot_trials[trial_id] = drawn
                return dict(drawn.params)
        raise SpecError(f"{DRAWS} draws in a row make no spec, the last of them: {refused}")

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        pass

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Complete with all of its metrics, or pruned: what failed ends like what was stopped."""
        result = result or {}
        self._ot_trials[trial_id].set_user_attr(SAMPLES, result.get(SAMPLES, 0))
        wanted = self.metric if isinstance(self.metric, list) else [self.metric]
        ended = result.get(ENDED, False) and not error
        whole = ended and all(math.isfinite(result.get(metric, math.nan)) for metric in wanted)
        super().on_trial_complete(trial_id, result if whole else None)

    def save(self, checkpoint_path: str) -> None:
        pass

    def __reduce__(self) -> tuple[Any, ...]:
        return OptunaSearch, ()  # Tune pickles it, to restore what is never restored


class Space:
    """Draws the values of a trial. Conditional: only the knobs of the study that was drawn."""

    def __init__(self, designs: Sequence[Design]) -> None:
        self._designs = designs

    def __call__(self, trial: optuna.Trial) -> None:
        several = len(self._designs) > 1
        number = trial.suggest_categorical(STUDY, range(len(self._designs))) if several else 0
        for line in self._designs[number].space:
            _suggest(trial, f"{number}.{line.path}", line)


def _suggest(trial: optuna.Trial, name: str, line: Dimension) -> None:
    held = line.range
    if isinstance(held, Choice):
        trial.suggest_categorical(name, range(len(held.values)))
    elif line.integer:
        trial.suggest_int(name, int(held.low), int(held.high), log=held.log)
    else:
        trial.suggest_float(name, held.low, held.high, log=held.log)


def _sampler(search: Search, seed: int) -> BaseSampler:
    match search.sampler:
        case "random":
            return RandomSampler(seed)
        case "tpe":
            return TPESampler(seed=seed, constant_liar=True)
        case "gp":
            return GPSampler(seed=seed)
        case "cmaes":
            return CmaEsSampler(seed=seed)
        case "nsga2":
            return NSGAIISampler(seed=seed)


class Past(NamedTuple):
    """A trial of an earlier session, as a scheduler asks for it."""

    trial_id: str


def scheduler(search: Search, steps: int, earlier: Iterable[Planned]) -> TrialScheduler:
    """In our own steps: Tune's count of reports starts anew with every restart. earlier: what it has seen before."""
    found = _scheduler(search, steps)
    for each in earlier:
        assert each.pretrain
        past = Past(each.id)
        found.on_trial_add(None, past)  # type: ignore[arg-type]
        for record in records(each.pretrain.spool, committed=False):
            numbers = {f"pretrain/{name}": value for name, value in record.values.items()}
            found.on_trial_result(None, past, {STEP: record.step, **numbers})  # type: ignore[arg-type]
    return found


def _scheduler(search: Search, steps: int) -> TrialScheduler:
    if search.scheduler == "none":
        return FIFOScheduler()  # type: ignore[no-untyped-call]
    metric, mode = search.ranking
    grace = max(1, steps // 3 ** (RUNGS - 1))
    if search.scheduler == "median":
        never: Any = math.inf  # to pause a trial, which would end its workers; any number is less than its first slice
        return MedianStoppingRule(time_attr=STEP, metric=metric, mode=mode, grace_period=grace, min_time_slice=never)
    return AsyncHyperBandScheduler(  # the other way it takes reports that skip a rung for reports at a lower one
        time_attr=STEP,
        metric=metric,
        mode=mode,
        max_t=steps,
        grace_period=grace,
        reduction_factor=3,
        stop_last_trials=False,
    )

"""The Optuna searcher that Tune is given: it proposes trials and learns from their results."""

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import optuna
from optuna.samplers import BaseSampler, CmaEsSampler, GPSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.trial import TrialState
from ray.tune.search.optuna import OptunaSearch

from selfsup.errors import CodeError, SpecError
from selfsup.knob import Choice
from selfsup.origin import CodePolicy
from selfsup.pipelines.planned import PlannedRun
from selfsup.pipelines.planning import plan
from selfsup.pipelines.usual import usual_feeder
from selfsup.sections import Feeder
from selfsup.sweeps.journal import FLAWED, Journal
from selfsup.sweeps.spec.design import Design
from selfsup.sweeps.spec.search import Search
from selfsup.sweeps.spec.space import Dimension
from selfsup.sweeps.trial import ENDED, FAILURE, PART, SAMPLES

STUDY = "study"  # of a trial's configuration, by number, where a search has several
BEST, MOST = 0.1, 25  # of the trials that TPE knows: the share that counts as good, as Optuna has it, and how many
DRAWS = 200  # in a row that may be refused


@dataclass(frozen=True)
class ProposedRuns:
    """A lookup of trials: a configuration names a study and a value of each of its dimensions.

    usual, code: as in `PlannedRun`, since a trial's process does not know the user's settings.
    """

    designs: Sequence[Design]
    home: Path
    usual: Feeder = field(default_factory=usual_feeder)
    code: CodePolicy = "refuse"

    def of(self, config: Mapping[str, Any]) -> PlannedRun:
        """Plan the run of a configuration. Raises SpecError for values that are invalid together."""
        design, values = self.drawn(config)
        return self._planned(design.trial(values))

    def drawn(self, config: Mapping[str, Any]) -> tuple[Design, dict[str, Any]]:
        """-> the study of a configuration, and its values by path."""
        number = config.get(STUDY, 0)
        design = self.designs[number]
        return design, {
            dimension.path: _value(dimension, config[f"{number}.{dimension.path}"]) for dimension in design.space
        }

    def defaults(self) -> list[PlannedRun]:
        """Plan one run of each study's default, as an example of a trial."""
        return [self._planned(design.default) for design in self.designs]

    def _planned(self, spec: Any) -> PlannedRun:
        [run] = plan(spec.model_copy(update={"baselines": False, "seeds": spec.seeds[:1]}), self.home)
        return replace(run, usual=self.usual, code=self.code)


def _value(dimension: Dimension, drawn: Any) -> Any:
    """Return the value that was drawn; a choice is drawn by its index, since Optuna takes no lists and no mappings."""
    return dimension.range.values[drawn] if isinstance(dimension.range, Choice) else drawn


class StopReasons(Protocol):
    """The reasons to stop. stopped: a trial that came to nothing -> why; over: why all trials were stopped."""

    @property
    def stopped(self) -> Mapping[str, str]: ...
    @property
    def over(self) -> str: ...


class OptunaSearcher(OptunaSearch):
    """A searcher that learns from final reports only: evaluations come with the last, where Tune asks for them in each.

    propose: called with each configuration before it becomes a trial; raises SpecError to refuse it.
    """

    def __init__(
        self,
        search: Search,
        designs: Sequence[Design],
        journal: Journal,
        propose: Callable[..., object],
        stop_reasons: StopReasons,
    ):
        self._metrics, self._modes = metrics, modes = list(search.objectives), list(search.objectives.values())
        several = len(metrics) > 1
        self._draw = TrialSpace(designs)
        super().__init__(
            space=self._draw,
            metric=metrics if several else metrics[0],
            mode=modes if several else modes[0],
            sampler=_sampler(search, search.seed + len(journal), journal),  # to go on is not to draw the same again
            storage=journal.storage,
            study_name=journal.name,
        )
        self._propose, self._stop_reasons = propose, stop_reasons
        self._rank = None if several or search.scheduler == "none" else search.ranking

    def suggest(self, trial_id: str) -> dict[str, Any] | str:  # type: ignore[override]  # FINISHED is a text
        if self._stop_reasons.over:
            return self.FINISHED
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
        """Complete a trial with all of its metrics, or prune it: stopped, with the number it was ranked by, or flawed.

        A trial that met what other code made stays open: like an interrupted one, it is proposed again.
        """
        result = result or {}
        if result.get(f"{FAILURE}/error") == CodeError.__name__:  # as Tune flattens it
            return
        drawn: optuna.Trial = self._ot_trials[trial_id]
        drawn.set_user_attr(SAMPLES, result.get(SAMPLES, 0))
        numbers = [result.get(metric, math.nan) for metric in self._metrics]
        whole = result.get(ENDED, False) and all(map(math.isfinite, numbers))
        flawed = not whole and (error or ENDED in result or trial_id in self._stop_reasons.stopped)
        if flawed:
            drawn.set_user_attr(FLAWED, True)
        elif not whole:
            self._report(drawn, result)
        super().on_trial_complete(trial_id, result if whole else self._worst() if flawed else None)

    def _worst(self) -> dict[str, float]:
        """Return the worst result so far in each metric.

        It stands for a flawed trial with a sampler that learns from values alone, and would propose the same again.
        """
        assert self._ot_study
        whole = self._ot_study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        if not whole or not isinstance(self._sampler, GPSampler):
            return {}
        columns = zip(*(trial.values for trial in whole), strict=True)
        least = [(max if mode == "min" else min)(column) for mode, column in zip(self._modes, columns, strict=True)]
        return dict(zip(self._metrics, least, strict=True))

    def _report(self, drawn: optuna.Trial, result: Mapping[str, Any]) -> None:
        """Report how far a stopped trial came and its number there, oriented like a result.

        In whole parts of a training: one more record is no reason to rank it higher.
        """
        if self._rank is None:
            return
        metric, mode = self._rank
        if math.isfinite(value := result.get(metric, math.nan)):
            drawn.report(value if mode == self.mode else -value, int(result[PART]))

    def save(self, checkpoint_path: str) -> None:
        pass

    def __reduce__(self) -> tuple[Any, ...]:
        return OptunaSearch, ()  # Tune pickles it, to restore what is never restored


class TrialSpace:
    """A conditional search space: it draws a study, then only the knobs of that study."""

    def __init__(self, designs: Sequence[Design]) -> None:
        self._designs = designs

    def __call__(self, trial: optuna.Trial) -> None:
        studies = len(self._designs) > 1
        number = trial.suggest_categorical(STUDY, range(len(self._designs))) if studies else 0
        for dimension in self._designs[number].space:
            _suggest(trial, f"{number}.{dimension.path}", dimension)


def _suggest(trial: optuna.Trial, name: str, dimension: Dimension) -> None:
    domain = dimension.range
    if isinstance(domain, Choice):
        trial.suggest_categorical(name, range(len(domain.values)))
    elif dimension.integer:
        trial.suggest_int(name, int(domain.low), int(domain.high), log=domain.log)
    else:
        trial.suggest_float(name, domain.low, domain.high, log=domain.log)


def _sampler(search: Search, seed: int, journal: Journal) -> BaseSampler:
    match search.sampler:
        case "random":
            return RandomSampler(seed)
        case "tpe":
            return _tpe(seed, journal)
        case "gp":
            return GPSampler(seed=seed)
        case "cmaes":
            return CmaEsSampler(seed=seed)
        case "nsga2":
            return NSGAIISampler(seed=seed)


def _tpe(seed: int, journal: Journal) -> BaseSampler:
    """Return Optuna's TPE, where no trial without a number counts as good: Optuna would fill up with such trials."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of gamma, which nothing replaces
        return TPESampler(
            seed=seed, constant_liar=True, gamma=lambda known: min(math.ceil(BEST * known), MOST, journal.numbered)
        )

"""A search: trials that Optuna proposes, until a budget is spent. Its journal survives any kill."""

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from time import monotonic
from typing import Any

from ray import tune

from selfsup import failures
from selfsup.errors import CodeError
from selfsup.origin import CodePolicy
from selfsup.pipelines.planned import PlannedRun
from selfsup.pipelines.stages.curves import discard
from selfsup.progress import say, several
from selfsup.sweeps import mlflow_tree
from selfsup.sweeps.driver import TrialMonitor, fit
from selfsup.sweeps.journal import Journal, RemainingBudget, journal_summary
from selfsup.sweeps.recorder import Recorder
from selfsup.sweeps.resources import at_a_time
from selfsup.sweeps.search import OptunaSearcher, ProposedRuns
from selfsup.sweeps.spec.confirm import search_key, search_sweep
from selfsup.sweeps.spec.sweep import Sweep
from selfsup.sweeps.spec.sweepfile import SweepFile
from selfsup.sweeps.stopping import scheduler
from selfsup.sweeps.trial import ENDED, SAMPLES, STEP, TRAINED
from selfsup.track import Tracker

PATIENCE = 3  # reports in a row of a trial that say that it has collapsed
GRACE = 0.1  # share of a training before which none of them counts


def left(sweep_file: SweepFile, home: Path) -> RemainingBudget:
    """Return what is left of the budgets of a search."""
    return _journal(sweep_file, home).left


def history(sweep_file: SweepFile, home: Path) -> Iterator[str]:
    """Yield which trials a search resumes from, and which it ignores; nothing for a new search."""
    assert sweep_file.search is not None
    counts = journal_summary(sweep_file.name, search_key(sweep_file, home), home)
    if counts.others:
        yield (
            f"beware  {several(counts.others, 'trial')} of this name had another space, metric, sampler, seed or "
            "default; this search is another, and begins without them"
        )
    if counts.trials:
        yield f"goes on after {several(counts.trials, 'trial')}: {sweep_file.search.repeats(counts.sessions + 1)}"


def explore(sweep_file: SweepFile, tracker: Tracker, home: Path, code: CodePolicy) -> None:
    """Search, or resume a search, until a budget is spent. Inside `ray_context()`, unless nothing is left of it.

    code: what trials do with stages that other code made. Raises SelfsupError where all trials fail alike, CodeError
    where some met what other code made, TrackError where MLflow is away: the same command continues.
    """
    journal = _journal(sweep_file, home)
    with journal.locked():
        if more := bool(journal.left):
            for line in history(sweep_file, home):
                say(line)
            journal.resume()
        placement = TrialPlacement(sweep_file, tracker, home, journal.sessions, code)
        recorder = Recorder(tracker, placement.tags, placement.parents)
        if more:
            _search(sweep_file, journal, placement, recorder)
        ended = [placement.propose(config) for config in journal.configs]
        for run in ended:
            discard(run)
        recorder.catch_up(ended)
        if not journal.left:
            done = search_sweep(sweep_file, (), home, over=True, sessions=journal.sessions)
            tracker.finish(mlflow_tree.open_sweep(tracker, done), "FINISHED")


def _search(sweep_file: SweepFile, journal: Journal, placement: "TrialPlacement", recorder: Recorder) -> None:
    assert sweep_file.search is not None
    plans = placement.plans
    monitor, defaults, remaining = TrialMonitor(plans, recorder), plans.defaults(), journal.left
    config = tune.TuneConfig(
        num_samples=remaining.trials,
        max_concurrent_trials=at_a_time(defaults),
        search_alg=OptunaSearcher(sweep_file.search, sweep_file.designs, journal, placement.propose, monitor),
        scheduler=scheduler(sweep_file.search, [plans.of(config) for config in journal.sound], monitor),
    )
    stop = BudgetStopper(monitor, remaining)
    fit(monitor, stop, config, {}, plans.home)
    stale = [failure for failure in monitor.failed if failure.error == CodeError.__name__]
    if stop.hopeless or stale:
        raise (stale or monitor.failed)[0].exception()


class BudgetStopper(tune.Stopper):
    """A Tune stopper that ends collapsed trials, and the search once a budget is spent or all trials fail.

    A trial that has trained to its end is still evaluated.
    """

    def __init__(self, monitor: TrialMonitor, budget: RemainingBudget) -> None:
        self._monitor, self._samples, self._until = monitor, budget.samples, monotonic() + budget.seconds
        self._seen: dict[str, int] = {}
        self._suspect: Counter[str] = Counter()
        self._trained: set[str] = set()  # and not evaluated yet

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        self._seen[trial_id] = result[SAMPLES]
        if result[TRAINED]:
            (self._trained.discard if ENDED in result else self._trained.add)(trial_id)
        return not result[TRAINED] and (bool(self._monitor.over) or self._collapsed(trial_id, result))

    def _collapsed(self, trial_id: str, result: dict[str, Any]) -> bool:
        if not any(name.startswith("pretrain/") for name in result):  # a report of an evaluation
            return False
        settled = result[STEP] > GRACE * self._monitor.steps(trial_id)
        why = failures.collapsed(result) if settled else ""
        self._suspect[trial_id] = self._suspect[trial_id] + 1 if why else 0
        if self._suspect[trial_id] < PATIENCE:
            return False
        self._monitor.stopped[trial_id] = why
        return True

    @property
    def hopeless(self) -> bool:
        """Return whether only failures come; a search continues past settings that fail while others do not."""
        return self._monitor.enough and not self._monitor.fair

    def stop_all(self) -> bool:
        if sum(self._seen.values()) >= self._samples:
            self._monitor.over = "the samples of the search were spent"
        elif monotonic() > self._until:
            self._monitor.over = "the hours of the search were over"
        elif self.hopeless:
            self._monitor.over = "the others failed alike"
        return bool(self._monitor.over) and not self._trained


def _journal(sweep_file: SweepFile, home: Path) -> Journal:
    assert sweep_file.search is not None
    return Journal(sweep_file.search, sweep_file.name, search_key(sweep_file, home), home)


class TrialPlacement:
    """The places of trials in MLflow: under the run of their search, tagged with the values drawn."""

    def __init__(self, sweep_file: SweepFile, tracker: Tracker, home: Path, sessions: int, code: CodePolicy) -> None:
        self.plans = ProposedRuns(sweep_file.designs, home, code=code)
        self.sweep: Sweep = search_sweep(sweep_file, (), home, sessions=sessions)
        self.tags: dict[str, Mapping[str, str]] = {}
        self.parents: dict[str, str] = {}
        self._root = mlflow_tree.open_sweep(tracker, self.sweep)

    def propose(self, config: Mapping[str, Any]) -> PlannedRun:
        """Plan a trial and note its tags and parent. Raises SpecError for values that are invalid together."""
        run = self.plans.of(config)
        design, values = self.plans.drawn(config)
        self.tags[run.id] = mlflow_tree.of_trial(self.sweep, design.name, values)
        self.parents[run.id] = self._root
        return run

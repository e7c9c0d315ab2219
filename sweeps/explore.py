"""A search: trials that Optuna proposes, until a budget is spent; what it learnt survives any kill."""

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from time import monotonic
from typing import Any

from ray import tune

from selfsup import failures
from selfsup.errors import CodeError
from selfsup.origin import Answer
from selfsup.pipelines.planned import PlannedRun
from selfsup.progress import say, several
from selfsup.sweeps import mlflow_tree
from selfsup.sweeps.driver import Watch, fit
from selfsup.sweeps.journal import Journal, Left, kept
from selfsup.sweeps.recorder import Recorder
from selfsup.sweeps.resources import at_a_time
from selfsup.sweeps.search import Proposed, Searcher
from selfsup.sweeps.spec.confirm import search_key, search_sweep
from selfsup.sweeps.spec.sweep import Sweep
from selfsup.sweeps.spec.sweepfile import SweepFile
from selfsup.sweeps.stopping import scheduler
from selfsup.sweeps.trial import ENDED, SAMPLES, STEP, TRAINED
from selfsup.track import Tracker

PATIENCE = 3  # reports in a row of a trial that say that it has collapsed
GRACE = 0.1  # share of a training before which none of them counts


def left(it: SweepFile, home: Path) -> Left:
    """Of the budgets of a search."""
    return _journal(it, home).left


def history(it: SweepFile, home: Path) -> Iterator[str]:
    """What a search goes on from, and what it leaves; nothing of one that is new."""
    assert it.search is not None
    there = kept(it.name, search_key(it, home), home)
    if there.others:
        yield (
            f"beware  {several(there.others, 'trial')} of this name had another space, metric, sampler, seed or "
            "default; this search is another, and begins without them"
        )
    if there.trials:
        yield f"goes on after {several(there.trials, 'trial')}: {it.search.repeats(there.sessions + 1)}"


def explore(it: SweepFile, tracker: Tracker, home: Path, code: Answer) -> None:
    """Search, or go on searching, until a budget is spent. Inside `cluster()`, unless nothing is left of it.

    code: what trials do with stages that other code made.
    Raises SelfsupError where all trials fail alike, CodeError where some met what other code made, TrackError where
    MLflow is away: the same command goes on.
    """
    journal = _journal(it, home)
    with journal.held():
        if more := bool(journal.left):
            for line in history(it, home):
                say(line)
            journal.resume()
        places = Places(it, tracker, home, journal.sessions, code)
        recorder = Recorder(tracker, places.tags, places.parents)
        if more:
            _search(it, journal, places, recorder)
        recorder.catch_up([places.propose(config) for config in journal.configs])
        if not journal.left:
            done = search_sweep(it, (), home, over=True, sessions=journal.sessions)
            tracker.finish(mlflow_tree.open_sweep(tracker, done), "FINISHED")


def _search(it: SweepFile, journal: Journal, places: "Places", recorder: Recorder) -> None:
    assert it.search is not None
    plans = places.plans
    watch, defaults, remaining = Watch(plans, recorder), plans.defaults(), journal.left
    config = tune.TuneConfig(
        num_samples=remaining.trials,
        max_concurrent_trials=at_a_time(defaults),
        search_alg=Searcher(it.search, it.designs, journal, places.propose, watch),
        scheduler=scheduler(it.search, [plans.of(each) for each in journal.sound], watch),
    )
    stop = Spent(watch, remaining)
    fit(watch, stop, config, {}, plans.home)
    stale = [failure for failure in watch.failed if failure.error == CodeError.__name__]
    if stop.hopeless or stale:
        raise (stale or watch.failed)[0].exception()


class Spent(tune.Stopper):
    """Ends a trial that has collapsed, and the search once a budget is spent or nothing but failures comes of it.

    What has trained to its end is evaluated all the same.
    """

    def __init__(self, watch: Watch, left: Left) -> None:
        self._watch, self._samples, self._until = watch, left.samples, monotonic() + left.seconds
        self._seen: dict[str, int] = {}
        self._suspect: Counter[str] = Counter()
        self._trained: set[str] = set()  # and not evaluated yet

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        self._seen[trial_id] = result[SAMPLES]
        if result[TRAINED]:
            (self._trained.discard if ENDED in result else self._trained.add)(trial_id)
        return not result[TRAINED] and (bool(self._watch.over) or self._collapsed(trial_id, result))

    def _collapsed(self, trial_id: str, result: dict[str, Any]) -> bool:
        settled = result[STEP] > GRACE * self._watch.steps(trial_id)
        why = failures.collapsed(result) if settled else ""
        self._suspect[trial_id] = self._suspect[trial_id] + 1 if why else 0
        if self._suspect[trial_id] < PATIENCE:
            return False
        self._watch.stopped[trial_id] = why
        return True

    @property
    def hopeless(self) -> bool:
        """A search goes on past settings that fail, as long as others do not."""
        return self._watch.enough and not self._watch.fair

    def stop_all(self) -> bool:
        if sum(self._seen.values()) >= self._samples:
            self._watch.over = "the samples of the search were spent"
        elif monotonic() > self._until:
            self._watch.over = "the hours of the search were over"
        elif self.hopeless:
            self._watch.over = "the others failed alike"
        return bool(self._watch.over) and not self._trained


def _journal(it: SweepFile, home: Path) -> Journal:
    assert it.search is not None
    return Journal(it.search, it.name, search_key(it, home), home)


class Places:
    """Where trials stand in MLflow: under the run of their search, with what was drawn for them as a tag."""

    def __init__(self, it: SweepFile, tracker: Tracker, home: Path, sessions: int, code: Answer) -> None:
        self.plans = Proposed(it.designs, home, code=code)
        self.sweep: Sweep = search_sweep(it, (), home, sessions=sessions)
        self.tags: dict[str, Mapping[str, str]] = {}
        self.parents: dict[str, str] = {}
        self._root = mlflow_tree.open_sweep(tracker, self.sweep)

    def propose(self, config: Mapping[str, Any]) -> PlannedRun:
        """Raises SpecError for values that are wrong together."""
        each = self.plans.of(config)
        design, values = self.plans.drawn(config)
        self.tags[each.id] = mlflow_tree.of_trial(self.sweep, design.name, values)
        self.parents[each.id] = self._root
        return each

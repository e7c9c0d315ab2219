"""Every trial that was ever proposed in a search, as Optuna keeps it: what was learnt survives a kill.

A trial that ends counts as complete with its numbers, or as pruned: stopped, with what it was ranked by, or flawed: it
collapsed, or failed. Failed, as Optuna calls it, is one that does not count: it was interrupted, or met what other code
made, and is proposed again; or its values were refused.
"""

import fcntl
import math
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from selfsup.errors import CheckpointError
from selfsup.progress import say
from selfsup.sweeps.spec.search import Search
from selfsup.sweeps.trial import SAMPLES

COUNTED = TrialState.COMPLETE, TrialState.PRUNED
STARTS = "starts"  # of a study: how many trials had been proposed whenever a session began
FLAWED = "flawed"  # of a trial that is pruned: it collapsed or failed, so that its numbers compare with none


class Left(NamedTuple):
    """What is left of a budget; infinity where there is none."""

    trials: int
    samples: float
    seconds: float

    def __bool__(self) -> bool:
        return min(self) > 0


class Kept(NamedTuple):
    """Trials of a search that have ended, the sessions that they are of, and trials of other searches of its name."""

    trials: int
    sessions: int
    others: int


class Journal:
    """key: what the search is known by; others of its name are kept in the same file."""

    def __init__(self, search: Search, name: str, key: str, home: Path) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        path = _path(name, home)
        path.parent.mkdir(parents=True, exist_ok=True)
        self.name = f"{name}-{key}"
        self._lock = path.with_suffix(".lock")
        self._search = search
        least, most = StudyDirection.MINIMIZE, StudyDirection.MAXIMIZE
        directions = [least if mode == "min" else most for mode in search.objectives.values()]
        with _sound(path):
            self.storage = JournalStorage(JournalFileBackend(str(path)))
            self._study = optuna.create_study(
                storage=self.storage, study_name=self.name, directions=directions, load_if_exists=True
            )

    def __len__(self) -> int:
        """Trials that were ever proposed."""
        return len(self._trials())

    @contextmanager
    def held(self) -> Iterator[None]:
        """Nobody else searches inside the block: a second process waits, then goes on from what is there."""
        with self._lock.open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                say(f"{self.name}: another process searches; waiting for it")
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def resume(self) -> None:
        """Begin a session: propose those again that were interrupted. Call it inside `held`."""
        self._study.set_user_attr(STARTS, sorted({*self._starts, len(self)}))
        for trial in self._trials(TrialState.RUNNING):
            self._study.enqueue_trial(trial.params)
            self._study.tell(trial.number, state=TrialState.FAIL)

    @property
    def sessions(self) -> int:
        """In how many pieces it was made so far."""
        return len(self._starts)

    @property
    def _starts(self) -> set[int]:
        return {0, *self._study.user_attrs.get(STARTS, ())}

    @property
    def left(self) -> Left:
        search, counted = self._search, self._counted()
        samples = sum(trial.user_attrs.get(SAMPLES, 0) for trial in counted)
        return Left(
            search.trials - len(counted),
            (search.samples or math.inf) - samples,
            (search.hours or math.inf) * 3600 - sum(_clock(counted)),
        )

    @property
    def configs(self) -> list[dict[str, Any]]:
        """Of the trials that have ended."""
        return [dict(trial.params) for trial in self._counted()]

    @property
    def sound(self) -> list[dict[str, Any]]:
        """Of those that ended well, or were stopped before."""
        return [dict(trial.params) for trial in self._counted() if not trial.user_attrs.get(FLAWED)]

    @property
    def numbered(self) -> int:
        """Trials that ended with a number to rank them by."""
        return sum(trial.state == TrialState.COMPLETE or bool(trial.intermediate_values) for trial in self._counted())

    def _counted(self) -> list[FrozenTrial]:
        return self._trials(*COUNTED)

    def _trials(self, *states: TrialState) -> list[FrozenTrial]:
        return self._study.get_trials(deepcopy=False, states=states or None)


def _clock(trials: list[FrozenTrial]) -> Iterator[float]:
    """Seconds in which at least one of them ran, as stretches."""
    told = ((each.datetime_start, each.datetime_complete) for each in trials)
    until = datetime.min
    for began, ended in sorted((began, ended) for began, ended in told if began and ended):
        yield max(0.0, (ended - max(began, until)).total_seconds())
        until = max(until, ended)


def kept(name: str, key: str, home: Path) -> Kept:
    """What there is of a search and of others of its name. Writes nothing."""
    path = _path(name, home)
    if not path.exists():
        return Kept(0, 0, 0)
    with _sound(path):
        storage = JournalStorage(JournalFileBackend(str(path)))
        names = [study.study_name for study in storage.get_all_studies()]
        numbers = {each: storage.get_study_id_from_name(each) for each in names}
        ended = {each: storage.get_n_trials(number, COUNTED) for each, number in numbers.items()}
        own = f"{name}-{key}"
        starts = {0, *storage.get_study_user_attrs(numbers[own]).get(STARTS, ())} if own in numbers else ()
        return Kept(ended.pop(own, 0), len(starts), sum(ended.values()))


@contextmanager
def _sound(path: Path) -> Iterator[None]:
    """Raise CheckpointError where Optuna cannot read what a journal holds."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:  # lines that nobody wrote make Optuna raise anything
        raise CheckpointError(
            f"{path}: damaged: {type(error).__name__}: {error}; put it back from a copy, or move it away and the "
            "search begins anew"
        ) from error


def _path(name: str, home: Path) -> Path:
    return home / "searches" / f"{name}.journal"

"""The journal of a search: every trial that was ever proposed, in Optuna's format, so that a search survives a kill.

A trial that ended counts as complete with its numbers, or as pruned: stopped, with the number it was ranked by, or
flawed: it collapsed or failed. Optuna's state "failed" marks a trial that does not count: it was interrupted or met
what other code made, and is proposed again; or its values were refused.
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

from selfsup.claim import claimed
from selfsup.errors import CheckpointError
from selfsup.homes import fetch, publish
from selfsup.progress import say
from selfsup.sweeps.spec.search import Search
from selfsup.sweeps.trial import SAMPLES

COUNTED = TrialState.COMPLETE, TrialState.PRUNED
STARTS = "starts"  # of a study: how many trials had been proposed whenever a session began
FLAWED = "flawed"  # of a trial that is pruned: it collapsed or failed, so that its numbers compare with none


class RemainingBudget(NamedTuple):
    """The rest of a budget; infinity where there is no limit."""

    trials: int
    samples: float
    seconds: float

    def __bool__(self) -> bool:
        return min(self) > 0


class JournalSummary(NamedTuple):
    """Numbers of ended trials of a search, of its sessions, and of ended trials of other searches of its name."""

    trials: int
    sessions: int
    others: int


class Journal:
    """The journal of one search. key: identifies the search; others of its name share the file."""

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
            self.storage = JournalStorage(_PublishedFile(path))
            self._study = optuna.create_study(
                storage=self.storage, study_name=self.name, directions=directions, load_if_exists=True
            )

    def __len__(self) -> int:
        """Return the number of trials that were ever proposed."""
        return len(self._trials())

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the search: a second process waits, then resumes from what is there."""
        with self._lock.open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                say(f"{self.name}: another process searches; waiting for it")
                fcntl.flock(lock, fcntl.LOCK_EX)
            with claimed(self._lock.with_suffix("")):
                fetch([self._lock.parent])
                yield

    def resume(self) -> None:
        """Begin a session: propose interrupted trials again. Call it inside `locked`."""
        self._study.set_user_attr(STARTS, sorted({*self._starts, len(self)}))
        for trial in self._trials(TrialState.RUNNING):
            self._study.enqueue_trial(trial.params)
            self._study.tell(trial.number, state=TrialState.FAIL)

    @property
    def sessions(self) -> int:
        """Return the number of sessions so far."""
        return len(self._starts)

    @property
    def _starts(self) -> set[int]:
        return {0, *self._study.user_attrs.get(STARTS, ())}

    @property
    def left(self) -> RemainingBudget:
        search, counted = self._search, self._counted()
        samples = sum(trial.user_attrs.get(SAMPLES, 0) for trial in counted)
        return RemainingBudget(
            search.trials - len(counted),
            (search.samples or math.inf) - samples,
            (search.hours or math.inf) * 3600 - sum(_clock(counted)),
        )

    @property
    def configs(self) -> list[dict[str, Any]]:
        """Return the configurations of trials that have ended."""
        return [dict(trial.params) for trial in self._counted()]

    @property
    def sound(self) -> list[dict[str, Any]]:
        """Return the configurations of trials that ended well or were stopped, without flawed ones."""
        return [dict(trial.params) for trial in self._counted() if not trial.user_attrs.get(FLAWED)]

    @property
    def numbered(self) -> int:
        """Return the number of trials that ended with a number to rank them by."""
        return sum(trial.state == TrialState.COMPLETE or bool(trial.intermediate_values) for trial in self._counted())

    def _counted(self) -> list[FrozenTrial]:
        return self._trials(*COUNTED)

    def _trials(self, *states: TrialState) -> list[FrozenTrial]:
        return self._study.get_trials(deepcopy=False, states=states or None)


class _PublishedFile(JournalFileBackend):
    """A file of a journal, published where its home is on object storage."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self._path = path

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        super().append_logs(logs)
        publish(self._path)


def _clock(trials: list[FrozenTrial]) -> Iterator[float]:
    """Yield stretches of seconds in which at least one trial ran."""
    times = ((trial.datetime_start, trial.datetime_complete) for trial in trials)
    until = datetime.min
    for began, ended in sorted((began, ended) for began, ended in times if began and ended):
        yield max(0.0, (ended - max(began, until)).total_seconds())
        until = max(until, ended)


def journal_summary(name: str, key: str, home: Path) -> JournalSummary:
    """Count what a journal holds of a search and of others of its name. Writes nothing."""
    path = _path(name, home)
    if not path.exists():
        return JournalSummary(0, 0, 0)
    with _sound(path):
        storage = JournalStorage(JournalFileBackend(str(path)))
        names = [study.study_name for study in storage.get_all_studies()]
        numbers = {study_name: storage.get_study_id_from_name(study_name) for study_name in names}
        ended = {study_name: storage.get_n_trials(number, COUNTED) for study_name, number in numbers.items()}
        own = f"{name}-{key}"
        starts = {0, *storage.get_study_user_attrs(numbers[own]).get(STARTS, ())} if own in numbers else ()
        return JournalSummary(ended.pop(own, 0), len(starts), sum(ended.values()))


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

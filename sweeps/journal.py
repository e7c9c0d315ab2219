"""Every trial that was ever proposed in a search, as Optuna keeps it: what was learnt survives a kill.

A trial that ends counts as complete with its numbers, or as pruned without: it failed, or it was stopped. Failed, as
Optuna calls it, is one that does not count: it was interrupted and is proposed again, or its values were refused.
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

from selfsup.progress import say
from selfsup.sweeps.trial import SAMPLES
from selfsup.sweepspec.search import Search


class Left(NamedTuple):
    """What is left of a budget; infinity where there is none."""

    trials: int
    samples: float
    seconds: float

    def __bool__(self) -> bool:
        return min(self) > 0


class Journal:
    """key: what the search is known by; others of its name are kept in the same file."""

    def __init__(self, search: Search, name: str, key: str, home: Path) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        path = home / "searches" / f"{name}.journal"
        path.parent.mkdir(parents=True, exist_ok=True)
        self.name = f"{name}-{key}"
        self._lock = path.with_suffix(".lock")
        self.storage = JournalStorage(JournalFileBackend(str(path)))
        self._search = search
        least, most = StudyDirection.MINIMIZE, StudyDirection.MAXIMIZE
        directions = [least if mode == "min" else most for mode in search.objectives.values()]
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
        """Propose those again that were interrupted. Call it inside `held`."""
        for trial in self._trials(TrialState.RUNNING):
            self._study.enqueue_trial(trial.params)
            self._study.tell(trial.number, state=TrialState.FAIL)

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

    def _counted(self) -> list[FrozenTrial]:
        return self._trials(TrialState.COMPLETE, TrialState.PRUNED)

    def _trials(self, *states: TrialState) -> list[FrozenTrial]:
        return self._study.get_trials(deepcopy=False, states=states or None)


def _clock(trials: list[FrozenTrial]) -> Iterator[float]:
    """Seconds in which at least one of them ran, as stretches."""
    told = ((each.datetime_start, each.datetime_complete) for each in trials)
    until = datetime.min
    for began, ended in sorted((began, ended) for began, ended in told if began and ended):
        yield max(0.0, (ended - max(began, until)).total_seconds())
        until = max(until, ended)

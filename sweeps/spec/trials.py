"""The trials of a search as its report sees them: their values, their results, the best. Plain data."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from selfsup.sweeps.result import Result
from selfsup.sweeps.spec.search import Search
from selfsup.sweeps.spec.space import Dimension


@dataclass(frozen=True)
class Trial:
    """One run of a search. number: from 1, in the order of their start. study: the name of its design.

    values: the values drawn, by path.
    """

    number: int
    study: str
    values: Mapping[str, Any]
    result: Result

    @property
    def name(self) -> str:
        return f"trial {self.number}"

    @property
    def metrics(self) -> Mapping[str, float]:
        return self.result.metrics


@dataclass(frozen=True)
class SearchResult:
    """A search and its trials so far. space, defaults: by study; defaults: values by path.

    over: its budget is spent, so that the best are final. sessions: the number of sessions that it ran in.
    """

    search: Search
    space: Mapping[str, tuple[Dimension, ...]]
    defaults: Mapping[str, Mapping[str, Any]]
    trials: tuple[Trial, ...]
    over: bool
    sessions: int = 1

    @property
    def ended(self) -> list[Trial]:
        """Return the trials that have a finite number for every metric of the search."""
        metrics = self.search.objectives
        finished = [trial for trial in self.trials if trial.result.status == "done"]
        return [
            trial for trial in finished if all(math.isfinite(trial.metrics.get(name, math.nan)) for name in metrics)
        ]

    @property
    def ranked(self) -> list[Trial]:
        """Return those of `ended`, the best by the first metric first, equal ones in order of their start."""
        metric, direction = next(iter(self.search.objectives.items()))
        sign = 1 if direction == "min" else -1
        return sorted(self.ended, key=lambda trial: sign * trial.metrics[metric])

    @property
    def best(self) -> list[Trial]:
        """Return the first of `ranked`; with several metrics the Pareto front, in that order."""
        if len(self.search.objectives) == 1:
            return self.ranked[:1]
        points = [[trial.metrics[name] for name in self.search.objectives] for trial in self.ranked]
        on_front = front(points, self.search.objectives.values())
        return [trial for trial, optimal in zip(self.ranked, on_front, strict=True) if optimal]

    @property
    def finalists(self) -> list[Trial]:
        """Return the trials to train again: all of `best`, or as many as the search says, evenly from end to end."""
        best = self.best
        at = np.linspace(0, len(best) - 1, min(len(best), self.search.finalists)).round().astype(int)
        return [best[number] for number in at]


def front(points: Sequence[Sequence[float]], directions: Iterable[str]) -> list[bool]:
    """-> for each point: whether it is on the Pareto front. directions: min or max."""
    signs = np.array([1 if direction == "max" else -1 for direction in directions])
    signed = np.reshape(np.array(points, float), (-1, len(signs))) * signs
    return [not ((signed >= one).all(1) & (signed > one).any(1)).any() for one in signed]

"""The trials of a search as its report sees them: what was drawn, how each ended, which are the best. Plain data."""

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
    """One run of a search. number: from 1, in the order in which they began. study: whose spec it is.

    values: what was drawn, by path.
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
class Searched:
    """A search and its trials so far. space, defaults: by study; of defaults the values by path.

    over: its budget is spent, so that the best are the best. sessions: in how many pieces it was made.
    """

    search: Search
    space: Mapping[str, tuple[Dimension, ...]]
    defaults: Mapping[str, Mapping[str, Any]]
    trials: tuple[Trial, ...]
    over: bool
    sessions: int = 1

    @property
    def ended(self) -> list[Trial]:
        """Those that have a finite number for every metric of the search."""
        wanted = self.search.objectives
        finished = [trial for trial in self.trials if trial.result.status == "finished"]
        return [each for each in finished if all(math.isfinite(each.metrics.get(name, math.nan)) for name in wanted)]

    @property
    def ranked(self) -> list[Trial]:
        """Those of `ended`, the best by the first metric first; of equals the earlier."""
        metric, direction = next(iter(self.search.objectives.items()))
        sign = 1 if direction == "min" else -1
        return sorted(self.ended, key=lambda trial: sign * trial.metrics[metric])

    @property
    def best(self) -> list[Trial]:
        """The first of `ranked`; with several metrics all that no other trial beats, in that order."""
        if len(self.search.objectives) == 1:
            return self.ranked[:1]
        points = [[trial.metrics[name] for name in self.search.objectives] for trial in self.ranked]
        kept = front(points, self.search.objectives.values())
        return [trial for trial, keep in zip(self.ranked, kept, strict=True) if keep]

    @property
    def finalists(self) -> list[Trial]:
        """Those of `best` that are trained again: all, or from end to end so many as the search says."""
        best = self.best
        at = np.linspace(0, len(best) - 1, min(len(best), self.search.finalists)).round().astype(int)
        return [best[number] for number in at]


def front(points: Sequence[Sequence[float]], directions: Iterable[str]) -> list[bool]:
    """Of each point whether no other is as good in everything and better in something. directions: min or max."""
    signs = np.array([1 if direction == "max" else -1 for direction in directions])
    signed = np.reshape(np.array(points, float), (-1, len(signs))) * signs
    return [not ((signed >= one).all(1) & (signed > one).any(1)).any() for one in signed]

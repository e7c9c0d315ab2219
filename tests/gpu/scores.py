"""Scores of every evaluation on a device beside the CPU's, of the small random features that contracts are checked on.

Splits, first weights and orders are drawn on the CPU, so that a device only adds up in another order: of validation
samples one may fall otherwise, and a number that is no share of them may be off by LIMIT of itself, or of 1.
"""

from collections.abc import Iterator, Mapping
from functools import partial

import numpy as np
from gpu.place import Row, Setup, attempt

from selfsup import evaluator
from selfsup.evaluator import Score
from selfsup.evaluator_contract import cheap, example

LIMIT = 0.02
TINY = ("knn", "invariance")


def rows(setup: Setup) -> Iterator[Row]:
    """Yield, for each evaluation, which score is the farthest off, in parts of what it may be."""
    for name in TINY if setup.tiny else evaluator.names():
        yield attempt({"evaluation": name}, partial(_row, name, setup.device))


def _row(name: str, device: str) -> Row:
    try:
        kind = evaluator.load(name)
        protocol, features = kind(cheap(kind)), example(kind, labelled=kind.target is not None)
        there, here = (dict(protocol.run(features, seed=0, device=place)) for place in (device, "cpu"))
    except ModuleNotFoundError as error:
        return {"skipped": f"{name}, which needs {error.name}"}
    scores = [score for score, metric in kind.metrics.items() if metric.better and score in here]
    return verdict({score: there[score] for score in scores}, {score: here[score] for score in scores})


def verdict(there: Mapping[str, Score], here: Mapping[str, Score]) -> Row:
    """Return the score that is the farthest off and how far, in parts of what it may be, and whether all are near."""
    parts = {name: off(there[name], score) for name, score in here.items()}
    worst = max(parts, key=lambda name: (parts[name] != parts[name], parts[name]))  # nan first
    return {"ok": all(part <= 1 for part in parts.values()), "score": worst, "off": parts[worst]}


def off(there: Score, here: Score) -> float:
    """Return how far a score is off, in parts of what it may be."""
    if isinstance(there, np.ndarray) and isinstance(here, np.ndarray):
        return float((there != here).sum())
    return abs(float(there) - float(here)) / (LIMIT * max(1.0, abs(float(here))))

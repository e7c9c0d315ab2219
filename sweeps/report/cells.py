"""The cells of a table: one arm under one metric, compared with the default of its study and with the best.

The unit is the pretraining seed: a cell counts the finished runs of its arm, one a seed. What is claimed of them, and
when nothing is: decision.py.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from selfsup.failures import diverged
from selfsup.hits import Seen
from selfsup.sweeps.report import images, stats
from selfsup.sweeps.report.decision import Decision, Outcome, Right
from selfsup.sweeps.report.wording import interval
from selfsup.sweeps.result import Result
from selfsup.sweeps.spec.study import Arm, Study

NOTHING = "–"
FIXED = "pixels"  # the method of a baseline without weights: its seeds are the probe's alone, so they are one replicate

Found = Mapping[str, Result]  # by our id


@dataclass(frozen=True)
class Cell:
    """One arm under one metric. None: not known, or too few seeds to say.

    n: finished seeds, of `planned`; of the others `diverged` were the setting's own fault, `pending` have not ended.
    half: of the 95 % interval of the mean, from the arm's own seeds. difference: to the default's mean, ±
    difference_half for all arms at once; p: adjusted likewise. best: the highest mean of its table, of arms that have
    two seeds; tied: not shown to be below the true best. expected: the paper's number.
    """

    n: int
    planned: int
    diverged: int
    pending: int
    values: Mapping[int, float]
    mean: float | None
    half: float | None
    difference: float | None
    difference_half: float | None
    p: float | None
    best: bool
    tied: bool
    expected: float | None
    text: str

    @property
    def differs(self) -> bool:
        """Tell whether a difference to the default is claimed."""
        return self.p is not None and self.p < 1 - stats.LEVEL


def outcome(arm: Arm, metric: str, found: Found) -> Outcome:
    """Count a seed with a finite number of a run that finished; it diverged where the number is not, or none came."""
    values, right, lost, pending = {}, {}, set(), set()
    for seed, key in sorted(arm.ids.items()):
        run = found.get(key)
        number = run.metrics.get(metric) if run else None
        if run is None or run.status in ("planned", "running"):
            pending.add(seed)
        elif run.status == "finished" and number is not None and math.isfinite(number):
            values[seed] = number
            if seen := run.seen.get(metric):
                right[seed] = seen
        elif diverged(run.reason) or (run.status == "finished" and number is not None):
            lost.add(seed)
    return Outcome(values, frozenset(lost), frozenset(pending), len(arm.ids), _hits(metric, values, right))


def _hits(metric: str, values: Mapping[int, float], seen: Mapping[int, Seen]) -> Right | None:
    """Find what the values are of; None where a seed does not tell, tells of other images, or of another number."""
    name = metric.rpartition("/")[2]
    hits = [seen[seed].right.get(name) for seed in values if seed in seen]
    same = {each.images for each in seen.values()}
    known = [each for each in hits if each is not None and len(each)]
    if not values or len(known) < len(values) or len(same) > 1:
        return None
    if not np.allclose([100 * each.mean() for each in known], list(values.values()), rtol=0, atol=1e-6):
        return None
    return Right(same.pop(), np.array(known))


def decision(arms: Iterable[Arm], metric: str, found: Found, control: str | None = None, looks: int = 0) -> Decision:
    """Decide under a metric. control: the name of the arm that all are compared with."""
    return Decision({arm.name: outcome(arm, metric, found) for arm in arms}, control, looks)


def cell(held: Outcome, expected: float | None = None) -> Cell:
    """Fill a cell, compared with nothing yet."""
    n = len(held.values)
    samples = list(held.values.values())
    mean = float(np.mean(samples)) if n else None
    floor = images.floor(held.right.hits) if held.right else None
    own = stats.raised(stats.spread([samples]), floor or 0.0, n - 1)
    half = stats.half_width(own, n) if own else None
    return Cell(
        n=n,
        planned=held.planned,
        diverged=len(held.diverged),
        pending=len(held.pending),
        values=held.values,
        mean=mean,
        half=half,
        difference=None,
        difference_half=None,
        p=None,
        best=False,
        tied=False,
        expected=expected,
        text=NOTHING if mean is None else interval(mean, half),
    )


def of_study(study: Study, metric: str, decided: Decision) -> dict[str, Cell]:
    """Compare with the default's: arm name -> its cell."""
    cells = {name: cell(held, study.expected.get(name, {}).get(metric)) for name, held in decided.arms.items()}
    return against(cells, decided)


def against(cells: Mapping[str, Cell], decided: Decision) -> dict[str, Cell]:
    """Tell differences to the control wherever there are two means; claims where the rule allows them."""
    assert decided.control is not None
    level = cells[decided.control].mean
    compared = dict(cells)
    for name, each in cells.items():
        if name != decided.control and each.mean is not None and level is not None:
            one = decided.comparisons.get(name)
            compared[name] = replace(
                each, difference=each.mean - level, difference_half=one and one.half, p=one and one.p
            )
    return compared


def of_baseline(arm: Arm, metric: str, found: Found) -> Cell:
    held = outcome(arm, metric, found)
    if fixed(arm, found):
        return replace(cell(held), n=min(1, len(held.values)), planned=1, half=None, text=_alone(held))
    return cell(held)


def fixed(arm: Arm, found: Found) -> bool:
    return any(found[key].params.get("method") == FIXED for key in arm.ids.values() if key in found)


def _alone(held: Outcome) -> str:
    return interval(float(np.mean(list(held.values.values()))), None) if held.values else NOTHING


def marked(column: Mapping[str, Cell], decided: Decision) -> dict[str, Cell]:
    """Mark by arm name best and tied of a table, among arms with two seeds; where nothing can be tested, all tie."""
    able = [name for name in column if column[name].n > 1]
    top = max((decided.ranks[name] for name in able), default=None)
    kept = set(decided.best(able))
    return {
        name: replace(each, best=name in able and decided.ranks[name] == top, tied=name in kept)
        for name, each in column.items()
    }

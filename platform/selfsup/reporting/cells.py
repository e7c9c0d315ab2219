"""The cells of a table: one arm under one metric, compared with the default of its study and with the best.

The unit is the pretraining seed: a cell counts the finished runs of its arm, one a seed. Nothing is claimed of an arm
with one seed, nor where the deviation between seeds rests on too few.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from selfsup.reporting import stats
from selfsup.reporting.results import Result
from selfsup.reporting.stats import Spread
from selfsup.reporting.wording import interval
from selfsup.sweepspec.arms import Arm, Study

NOTHING = "–"
FIXED = "pixels"  # the method of a baseline without weights: its seeds are the probe's alone, so they are one replicate

Found = Mapping[str, Result]  # by our id


@dataclass(frozen=True)
class Cell:
    """One arm under one metric. None: not known, or too few seeds to say.

    n: finished seeds. half: of the 95 % interval of the mean. difference: to the default's mean, ± difference_half for
    all arms at once; p: adjusted likewise (Dunnett); paired: likewise by sign flips, from 6 common seeds on. best: the
    highest mean of its table; tied: not shown to be below the true best. expected: the paper's number.
    """

    n: int
    planned: int
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
    paired: float | None = None

    @property
    def samples(self) -> list[float]:
        return list(self.values.values())


def values(arm: Arm, metric: str, found: Found) -> dict[int, float]:
    """seed -> value of every run that counts: finished, with a finite number."""
    runs = {seed: found[key] for seed, key in sorted(arm.ids.items()) if key in found}
    held = {seed: run.metrics.get(metric, math.nan) for seed, run in runs.items() if run.status == "finished"}
    return {seed: value for seed, value in held.items() if math.isfinite(value)}


def pooled(arms: Iterable[Arm], metric: str, found: Found) -> Spread | None:
    return stats.spread([list(values(arm, metric, found).values()) for arm in arms])


def claims(spread: Spread | None) -> bool:
    return spread is not None and spread.dof >= stats.DOF


def cell(arm: Arm, held: Mapping[int, float], spread: Spread | None, expected: float | None = None) -> Cell:
    """Of the values of an arm by seed, compared with nothing yet."""
    n = len(held)
    mean = float(np.mean(list(held.values()))) if n else None
    half = stats.half_width(spread, n) if spread and n > 1 else None
    return Cell(
        n=n,
        planned=len(arm.ids),
        values=held,
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


def of_study(study: Study, metric: str, spread: Spread | None, found: Found) -> dict[str, Cell]:
    """Arm name -> its cell, compared with the default's, the first."""
    cells = {
        arm.name: cell(arm, values(arm, metric, found), spread, study.expected.get(arm.name, {}).get(metric))
        for arm in study.arms
    }
    (first, default), *others = cells.items()
    return {first: default} | _paired(default, _against(default, dict(others), spread))


def of_baseline(arm: Arm, metric: str, found: Found) -> Cell:
    """With an interval from its own seeds alone: what trains nothing deviates unlike what trains."""
    held = values(arm, metric, found)
    if any(found[key].params.get("method") == FIXED for key in arm.ids.values() if key in found):
        return replace(cell(arm, held, None), n=min(1, len(held)), planned=1)
    return cell(arm, held, stats.spread([list(held.values())]))


def marked(column: Sequence[Cell], spread: Spread | None, beside: Sequence[Cell] = ()) -> list[Cell]:
    """Best and tied of a table; beside: the study's other cells. What could not be tested counts as tied, so that only
    what was shown to be worse is unmarked.
    """
    top = max((each.mean for each in column if each.mean is not None), default=None)
    able = [each for each in column if each.n > 1]
    kept = [True] * len(able)
    if spread and claims(spread):
        kept = stats.contenders([each.samples for each in able], spread, [each.n for each in beside if each.n > 1])
    out = {id(each) for each, keep in zip(able, kept, strict=True) if not keep}
    return [
        each if each.mean is None else replace(each, best=each.mean == top, tied=id(each) not in out) for each in column
    ]


def _against(default: Cell, cells: Mapping[str, Cell], spread: Spread | None) -> dict[str, Cell]:
    """Differences wherever there are two means; claims where both have 2 seeds and the spread rests on enough."""
    compared = dict(cells)
    for name, each in cells.items():
        if each.mean is not None and default.mean is not None:
            compared[name] = replace(each, difference=each.mean - default.mean)
    able = [name for name, each in cells.items() if each.n > 1 and default.n > 1]
    if able and spread and claims(spread):
        found = stats.dunnett([cells[name].samples for name in able], default.samples, spread)
        for name, one in zip(able, found, strict=True):
            compared[name] = replace(compared[name], difference_half=one.half, p=one.p)
    return compared


def _paired(default: Cell, cells: Mapping[str, Cell]) -> dict[str, Cell]:
    """Seed by seed against the default, for the arms that have enough seeds in common with it."""
    able = {name: each for name, each in cells.items() if len(each.values.keys() & default.values) in stats.PAIRED}
    common = sorted(set(default.values).intersection(*(each.values for each in able.values())))
    if not able or len(common) not in stats.PAIRED:
        return dict(cells)
    differences = np.array([[each.values[seed] - default.values[seed] for each in able.values()] for seed in common])
    adjusted = zip(able, stats.sign_flips(differences), strict=True)
    return {**cells, **{name: replace(able[name], paired=float(p)) for name, p in adjusted}}

"""The cells of a table: one arm under one metric, compared with the default of its study and with the best arm.

The unit of replication is the pretraining seed: a cell counts the finished runs of its arm, one per seed. When a
difference is claimed is decided in decision.py.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from selfsup.evaluator import ACCURACY, Metric
from selfsup.failures import diverged
from selfsup.hits import HitRecord
from selfsup.sweeps.report import bootstrap, images, stats
from selfsup.sweeps.report.bootstrap import Interval
from selfsup.sweeps.report.decision import Decision, ImageHits, Outcome
from selfsup.sweeps.report.wording import interval
from selfsup.sweeps.result import Result
from selfsup.sweeps.spec.study import Arm, Study

NOTHING = "–"
WEIGHTLESS = "pixels"  # the method of a baseline without weights: its seeds differ in the probe alone, as one replicate

ResultsById = Mapping[str, Result]  # by our id


@dataclass(frozen=True)
class Cell:
    """One arm under one metric. None stands for "not known" or "too few seeds".

    n: finished seeds, out of `planned`; of the others, `diverged` failed because of the setting and `pending` have not
    ended. half: half width of the 95 % interval of the mean, from the arm's own seeds. difference: to the default's
    mean; difference_half: half width of its simultaneous interval; p: adjusted for all arms. best: the best mean of
    the table, among arms with two seeds or more; behind: of the best mean, the baselines that it is no better than;
    tied: not shown to be below the true best. expected: the paper's number. over_images: ends of the 95 % interval of
    the difference over validation images, with these seeds; difference_half is of that over seeds.
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
    scale: Metric = ACCURACY
    behind: tuple[str, ...] = ()
    over_images: Interval | None = None

    @property
    def differs(self) -> bool:
        """Return whether a difference to the default is claimed."""
        return self.p is not None and self.p < 1 - stats.LEVEL


def arm_outcome(arm: Arm, metric: str, results: ResultsById) -> Outcome:
    """Collect the results of an arm under a metric, seed by seed.

    A seed has a value where its run finished with a finite number. It diverged where the number is not finite, or where
    the run failed for a reason that the setting is to blame for.
    """
    values, hits, diverged_seeds, pending = {}, {}, set(), set()
    for seed, key in sorted(arm.ids.items()):
        run = results.get(key)
        number = run.metrics.get(metric) if run else None
        if run is None or run.status in ("pending", "running"):
            pending.add(seed)
        elif run.status == "done" and number is not None and math.isfinite(number):
            values[seed] = number
            if seed_hits := run.seen.get(metric):
                hits[seed] = seed_hits
        elif diverged(run.reason) or (run.status == "done" and number is not None):
            diverged_seeds.add(seed)
    return Outcome(values, frozenset(diverged_seeds), frozenset(pending), len(arm.ids), _hits(metric, values, hits))


def _hits(metric: str, values: Mapping[int, float], hits_of_seeds: Mapping[int, HitRecord]) -> ImageHits | None:
    """Return which images each seed had right.

    None where that is not known of a seed, where seeds saw different images, or where the hits do not yield the values.
    """
    name = metric.rpartition("/")[2]
    images = {seed_hits.images for seed_hits in hits_of_seeds.values()}
    maybe = [hits_of_seeds[seed].right.get(name) for seed in values if seed in hits_of_seeds]
    rows = [hits for hits in maybe if hits is not None and len(hits)]
    if not values or len(rows) < len(values) or len(images) > 1:
        return None
    if not np.allclose([100 * hits.mean() for hits in rows], list(values.values()), rtol=0, atol=1e-6):
        return None
    return ImageHits(images.pop(), np.array(rows))


def decide(arms: Iterable[Arm], metric: str, results: ResultsById, control: str, looks: int, scale: Metric) -> Decision:
    """Build the decision for arms under a metric. control: the name of the arm that all are compared with."""
    return Decision({arm.name: arm_outcome(arm, metric, results) for arm in arms}, control, looks, scale)


def new_cell(outcome: Outcome, expected: float | None = None) -> Cell:
    """Build a cell that is not compared with anything yet."""
    n = len(outcome.values)
    samples = list(outcome.values.values())
    mean = float(np.mean(samples)) if n else None
    floor = images.floor(outcome.hits.hits) if outcome.hits else None
    spread = stats.raise_to(stats.spread([samples]), floor or 0.0, n - 1)
    half = stats.half_width(spread, n) if spread else None
    return Cell(
        n=n,
        planned=outcome.planned,
        diverged=len(outcome.diverged),
        pending=len(outcome.pending),
        values=outcome.values,
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


def study_cells(study: Study, metric: str, decided: Decision) -> dict[str, Cell]:
    """-> arm name: its cell, compared with the default's."""
    cells = {
        name: new_cell(outcome, study.expected.get(name, {}).get(metric)) for name, outcome in decided.arms.items()
    }
    return compared_with_control(cells, decided)


def compared_with_control(cells: Mapping[str, Cell], decided: Decision) -> dict[str, Cell]:
    """Add to each cell its difference to the control, and interval and p where the decision rule gives them."""
    assert decided.control is not None
    level = cells[decided.control].mean
    compared = dict(cells)
    for name, cell in cells.items():
        if name != decided.control and cell.mean is not None and level is not None:
            comparison = decided.comparisons.get(name)
            compared[name] = replace(
                cell,
                difference=cell.mean - level,
                difference_half=comparison and comparison.half,
                p=comparison and comparison.p,
                over_images=_over_images(decided.arms[name].hits, decided.arms[decided.control].hits),
            )
    return compared


def _over_images(one: ImageHits | None, other: ImageHits | None) -> Interval | None:
    """Return the ends of the interval of a difference over images; None where it is not known, or not of the same."""
    if one is None or other is None or one.images != other.images:
        return None
    return bootstrap.difference(one.hits, other.hits)


def baseline_cell(arm: Arm, metric: str, results: ResultsById) -> Cell:
    """Build the cell of a baseline; one without weights has one replicate, however many probe seeds."""
    counted = arm_outcome(arm, metric, results)
    if has_no_weights(arm, results):
        return replace(new_cell(counted), n=min(1, len(counted.values)), planned=1, half=None, text=_mean_text(counted))
    return new_cell(counted)


def has_no_weights(arm: Arm, results: ResultsById) -> bool:
    """Return whether an arm trains and draws no weights, so that its seeds differ in the probe only."""
    return any(results[key].params.get("method") == WEIGHTLESS for key in arm.ids.values() if key in results)


def _mean_text(outcome: Outcome) -> str:
    return interval(float(np.mean(list(outcome.values.values()))), None) if outcome.values else NOTHING


def mark_best(column: Mapping[str, Cell], decided: Decision) -> dict[str, Cell]:
    """Set `best` and `tied`, by arm name, among arms with two seeds or more; all tie where nothing can be tested."""
    replicated = [name for name in column if column[name].n > 1]
    sign = decided.scale.sign
    best = max((sign * decided.ranks[name] for name in replicated), default=None)
    tied = set(decided.best(replicated))
    return {
        name: replace(
            cell,
            best=name in replicated and sign * decided.ranks[name] == best,
            tied=name in tied,
            scale=decided.scale,
        )
        for name, cell in column.items()
    }


def mark_behind(cell: Cell, baselines: Mapping[str, Cell]) -> Cell:
    """Set `behind` of the best mean. baselines: by name, under the same metric."""
    if not cell.best or cell.mean is None:
        return cell
    sign = cell.scale.sign
    means = {name: baseline.mean for name, baseline in baselines.items() if baseline.mean is not None}
    return replace(cell, behind=tuple(name for name, mean in means.items() if sign * cell.mean <= sign * mean))

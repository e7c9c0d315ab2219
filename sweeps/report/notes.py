"""Notes under the tables of a report: what an interval covers, which tests are made, what they assume."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from selfsup.progress import several
from selfsup.sweeps.report import images, stats
from selfsup.sweeps.report.cells import Cell
from selfsup.sweeps.report.decision import ALPHA, Decision
from selfsup.sweeps.report.table import Table
from selfsup.sweeps.report.wording import heading, listed
from selfsup.sweeps.spec.study import SETTING, Study
from selfsup.sweeps.spec.sweep import Sweep

Decisions = Mapping[str, Decision]  # by metric

BAND = 1.96  # standard errors on either side of a 95 % interval of many images

COVERS = (
    "Mean ± half of the 95 % interval over pretraining seeds, each of which draws initial weights, order, views and "
    "probe anew; from the arm's own seeds alone. It does not cover the choice of validation samples, and ends at 0 "
    "and 100 where it would pass them."
)
REPLICATES = (
    "A pretraining counts once, however often it is probed. Nothing is claimed of an arm with one seed, nor where the "
    f"deviation between seeds has fewer than {stats.DOF} degrees of freedom; an arm with one seed is marked in nothing."
)
RULE = (
    "A difference is claimed where two tests agree, both two-sided: Dunnett's, adjusted for all planned arms, with the "
    "deviation between seeds pooled over them; and Welch's, with the deviations of the two arms alone, its p "
    "multiplied by log2 of the number of arms, so that no claim rests on arms deviating alike. Where all arms have the "
    f"same seeds and these leave {stats.DOF} degrees of freedom, each seed's own level is taken off first (blocks). "
    "Where it is known which samples each seed had right, no deviation is taken to be below what independent flips of "
    "samples between seeds make (the floor). The interval is the wider of the two, p the larger. What is claimed has "
    "p < 0.05 before it is rounded."
)
BEST = (
    "Marked are the best mean and all that the same two tests, with each arm in turn as the reference, do not put "
    "behind another: the true best is among them with 95 % (Hsu). What is not marked was shown to be worse than the "
    "best, or has one seed only. ‡, or a line below it, tells of a best mean that it is no better than a baseline."
)
FAILURES = (
    "A seed that diverged or collapsed is an outcome: it counts as the worst value of the study, and what is claimed "
    "of its arm is claimed with such seeds and without. Means and intervals are of finished seeds. Runs that failed "
    "for other reasons are missing."
)
LOOKS = "Where seeds were added to arms that had a plan before, p is doubled for each such plan."
ALONE = "One factor was varied at a time: interactions were not tested."
INTERACTION = (
    "Interaction: F test of what rows and columns alone leave of the crossed means, if arms deviate alike; its p is "
    "not adjusted. Where one arm is four times noisier, up to 14 % of such p are below 0.05 by chance: no claim."
)
FLOOR = (
    "Baselines train nothing, and are marked in nothing. Differences of methods are to the untrained encoder of their "
    "backbone, by the tests above, with it as the default. It has the usual initial weights (MAE's in ViTs, timm's in "
    "others), which a method may draw from another distribution, as its authors do."
)
DEFAULT, RANKED, UNTRAINED = "comparisons with a default", "the best", "comparisons with an untrained encoder"
UNEQUAL = "deviations between seeds are not alike"


def general_notes(sweep: Sweep, tables: "Sequence[Table]", looks: int) -> tuple[str, ...]:
    """Write the notes on uncertainty and tests that hold for the whole report.

    looks: earlier plans with fewer seeds.
    """
    cells = [cell for table in tables for line in table.lines for cell in line.cells.values()]
    kinds = families(sweep, tables)
    compared = kinds[DEFAULT] > 0 or kinds[UNTRAINED] > 0
    notes = [COVERS, REPLICATES, *([RULE] * compared), BEST, *([FAILURES] * any(cell.diverged for cell in cells))]
    notes += [_looks_note(looks)] if looks else []
    return (*notes, *([_chance_note(sweep, kinds, looks)] if any(kinds.values()) else []))


def families(sweep: Sweep, tables: "Sequence[Table]") -> dict[str, int]:
    """Count the families of claims under one metric; with two arms, the best is no separate question."""
    kinds = {DEFAULT: sum(len(study.arms) > 1 for study in sweep.studies), RANKED: 0, UNTRAINED: 0}
    for table in tables:
        ids = {tuple(line.arm.ids.values()): line for line in table.lines if line.arm not in sweep.baselines}
        kinds[RANKED] += len(ids) > (2 if table.study else 1)
        kinds[UNTRAINED] += sum(_has_seeds(line.cells.values()) for line in table.lines if line.arm in sweep.baselines)
    return kinds


def _has_seeds(cells: "Iterable[Cell]") -> bool:
    """Return whether a baseline has seeds that methods are compared with."""
    return any(cell.n > 1 for cell in cells)


def _chance_note(sweep: Sweep, kinds: Mapping[str, int], looks: int) -> str:
    """Write how many families of claims there are, and the chance that any of them makes a false claim."""
    metrics = [sweep.primary] if sweep.primary else list(sweep.metrics)
    number, rate = sum(kinds.values()) * len(metrics), ALPHA * (1 + (looks > 0))
    names, metric_names = (
        listed([name for name, times in kinds.items() if times]),
        listed([heading(name) for name in metrics]),
    )
    text = f"Claims are made in {number} famil{'y' if number == 1 else 'ies'} ({names}, of {metric_names}). "
    text += "The chance to claim a difference where none is, or to leave the best unmarked, is about "
    text += f"{100 * rate:.0f} % at most"
    text += f" in each, and about {100 * (1 - (1 - rate) ** number):.0f} % in all." if number > 1 else "."
    if sweep.primary:
        return f"{text} {metric_names.capitalize()} was named primary: p and marks of other metrics are no claims."
    return text + " A primary metric, named in the sweep file, makes claims of that alone." * (len(metrics) > 1)


def _looks_note(looks: int) -> str:
    return (
        f"Seeds were added after {looks} earlier plan{'s' * (looks > 1)} of the same arms, whose results could be "
        f"seen: p is multiplied by {2**looks}, which keeps the chance of a false claim at any of the looks below 10 %, "
        "not 5."
    )


def study_note(study: Study, decisions: Decisions, *, grid: bool) -> str:
    """Write the note of a study's table. grid: its factors are crossed."""
    rests = _spread_note(f"the arms of {study.name}", decisions)
    alone = [] if study.factors and study.factors[0].path == SETTING else [ALONE]  # of a search all were varied
    source = [f"Expected numbers: {study.source}."] if study.source else []
    return " ".join(
        [rests, *_image_notes(decisions), *_warnings(decisions), *([INTERACTION] if grid else alone), *source]
    )


def methods_note(decisions: Decisions, *, floor: bool) -> str:
    """Write the note of the table of methods. floor: it has baselines."""
    return " ".join(
        [_spread_note("the methods", decisions), *_image_notes(decisions), *_warnings(decisions), *([FLOOR] * floor)]
    )


def _spread_note(group: str, decisions: Decisions) -> str:
    texts = [
        f"{spread.deviation:.2g} with {several(spread.dof, 'degree', 'degrees')} of freedom ({heading(metric)}"
        f"{', seeds as blocks' if decided.family.blocked else ''})"
        for metric, decided in decisions.items()
        if (spread := decided.spread)
    ]
    return f"The deviation between seeds, pooled over {group}: {listed(texts) or 'not known yet'}."


def _image_notes(decisions: Decisions) -> Iterator[str]:
    """Yield what other validation samples would change, and the floor of deviations; or that it is not known."""
    unknown = [heading(metric) for metric, decided in decisions.items() if decided.names and not decided.hits]
    if unknown:
        names = listed(unknown)
        yield f"Which samples each seed had right is not known of all arms ({names}): deviations have no floor."
    for metric, decided in decisions.items():
        if decided.family.floor is None:
            continue
        alone, floor = BAND * max(map(images.level, decided.hits)), decided.family.floor.deviation
        pair = f" and a difference by ± {_paired(decided.hits):.2g}" if len(decided.hits) > 1 else ""
        yield (
            f"Of {heading(metric)} flips of samples make a pooled deviation of {floor:.2g} (the floor); other "
            f"validation samples would move a mean by another ± {alone:.2g}{pair}."
        )


def _paired(arms: Sequence[images.Hits]) -> float:
    """Return the largest image uncertainty of a difference to the first arm."""
    return BAND * max(images.difference(arms[0], hits) for hits in arms[1:])


def _warnings(decisions: Decisions) -> Iterator[str]:
    """Yield warnings by Bartlett's test; with few seeds it has little power, which is why no claim rests on it."""
    for metric, decided in decisions.items():
        p = decided.family.heterogeneity
        if p < ALPHA:
            own = dict(zip(decided.names, decided.family.own**0.5, strict=True))
            least, most = min(own, key=own.__getitem__), max(own, key=own.__getitem__)
            ends = listed([f"{own[name]:.2g} of {name}" for name in (most, least)])
            yield f"Of {heading(metric)} {UNEQUAL} (Bartlett, p = {p:.2g}): {ends}."

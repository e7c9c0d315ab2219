"""What the numbers of a report rest on: what an interval covers, which tests are made, what they assume."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

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
    "probe anew; from the arm's own seeds alone. It does not cover the choice of validation images, and ends at 0 "
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
    "Where it is known which images each seed had right, no deviation is taken to be below what independent flips of "
    "images between seeds make (the floor). The interval is the wider of the two, p the larger. What is claimed has "
    "p < 0.05 before it is rounded."
)
BEST = (
    "Marked are the highest mean and all that the same two tests, with each arm in turn as the reference, do not put "
    "below another: the true best is among them with 95 % (Hsu). What is not marked was shown to be below the best, or "
    "has one seed only."
)
FAILURES = (
    "A seed that diverged or collapsed is an outcome: it counts as the lowest value of the study, and what is claimed "
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
    "Baselines train nothing, and are marked in nothing. Differences of methods are to the untrained encoder that they "
    "began as, by the tests above, with it as the default."
)
DEFAULT, RANKED, UNTRAINED = "comparisons with a default", "the best", "comparisons with an untrained encoder"
UNEQUAL = "deviations between seeds are not alike"


def general(sweep: Sweep, tables: "Sequence[Table]", looks: int) -> tuple[str, ...]:
    """Tell once a report which uncertainty is shown and which tests were made. looks: at fewer seeds, before."""
    cells = [cell for table in tables for line in table.lines for cell in line.cells.values()]
    kinds = families(sweep, tables)
    compared = kinds[DEFAULT] > 0 or kinds[UNTRAINED] > 0
    told = [COVERS, REPLICATES, *([RULE] * compared), BEST, *([FAILURES] * any(cell.diverged for cell in cells))]
    told += [_looked(looks)] if looks else []
    return (*told, *([_chance(sweep, kinds, looks)] if any(kinds.values()) else []))


def families(sweep: Sweep, tables: "Sequence[Table]") -> dict[str, int]:
    """Count what is claimed under one metric: of a default and one other arm, the best is no question of its own."""
    kinds = {DEFAULT: sum(len(study.arms) > 1 for study in sweep.studies), RANKED: 0, UNTRAINED: 0}
    for table in tables:
        ids = {tuple(line.arm.ids.values()): line for line in table.lines if line.arm not in sweep.baselines}
        kinds[RANKED] += len(ids) > (2 if table.study else 1)
        kinds[UNTRAINED] += sum(_tested(line.cells.values()) for line in table.lines if line.arm in sweep.baselines)
    return kinds


def _tested(cells: "Iterable[Cell]") -> bool:
    """Tell whether a baseline has seeds that methods are compared with."""
    return any(cell.n > 1 for cell in cells)


def _chance(sweep: Sweep, kinds: Mapping[str, int], looks: int) -> str:
    """Tell of how many families there are, and the chance that any of them makes a false claim."""
    metrics = [sweep.primary] if sweep.primary else list(sweep.metrics)
    number, each = sum(kinds.values()) * len(metrics), ALPHA * (1 + (looks > 0))
    names, told = listed([name for name, times in kinds.items() if times]), listed([heading(name) for name in metrics])
    text = f"Claims are made in {number} famil{'y' if number == 1 else 'ies'} ({names}, of {told}). "
    text += "The chance to claim a difference where none is, or to leave the best unmarked, is about "
    text += f"{100 * each:.0f} % at most"
    text += f" in each, and about {100 * (1 - (1 - each) ** number):.0f} % in all." if number > 1 else "."
    if sweep.primary:
        return f"{text} {told.capitalize()} was named primary: p and marks of other metrics are no claims."
    return text + " A primary metric, named in the sweep file, makes claims of that alone." * (len(metrics) > 1)


def _looked(looks: int) -> str:
    return (
        f"Seeds were added after {looks} earlier plan{'s' * (looks > 1)} of the same arms, whose results could be "
        f"seen: p is multiplied by {2**looks}, which keeps the chance of a false claim at any of the looks below 10 %, "
        "not 5."
    )


def of_study(study: Study, decisions: Decisions, *, grid: bool) -> str:
    """Tell of a table of a study. grid: of crossed factors."""
    rests = _rests(f"the arms of {study.name}", decisions)
    alone = [] if study.factors and study.factors[0].path == SETTING else [ALONE]  # of a search all were varied
    source = [f"Expected numbers: {study.source}."] if study.source else []
    return " ".join([rests, *_images(decisions), *_warned(decisions), *([INTERACTION] if grid else alone), *source])


def of_methods(decisions: Decisions, *, floor: bool) -> str:
    """Tell of the table of methods. floor: with baselines."""
    return " ".join([_rests("the methods", decisions), *_images(decisions), *_warned(decisions), *([FLOOR] * floor)])


def _rests(over: str, decisions: Decisions) -> str:
    each = [
        f"{found.deviation:.2g} with {found.dof} degrees of freedom ({heading(metric)}"
        f"{', seeds as blocks' if decided.family.blocked else ''})"
        for metric, decided in decisions.items()
        if (found := decided.spread)
    ]
    return f"The deviation between seeds, pooled over {over}: {listed(each) or 'not known yet'}."


def _images(decisions: Decisions) -> Iterator[str]:
    """Tell what other validation images would change, and the floor of deviations; or that it is not known."""
    blind = [heading(metric) for metric, decided in decisions.items() if decided.names and not decided.right]
    if blind:
        yield f"Which images each seed had right is not known of all arms ({listed(blind)}): deviations have no floor."
    for metric, decided in decisions.items():
        if decided.family.floor is None:
            continue
        alone, floor = BAND * max(map(images.level, decided.right)), decided.family.floor.deviation
        pair = f" and a difference by ± {_paired(decided.right):.2g}" if len(decided.right) > 1 else ""
        yield (
            f"Of {heading(metric)} flips of images make a pooled deviation of {floor:.2g} (the floor); other "
            f"validation images would move a mean by another ± {alone:.2g}{pair}."
        )


def _paired(right: Sequence[images.Hits]) -> float:
    """Find the largest, of arms against the first."""
    return BAND * max(images.difference(right[0], hits) for hits in right[1:])


def _warned(decisions: Decisions) -> Iterator[str]:
    """Warn by Bartlett's test; it sees little in few seeds, which is why no claim rests on it."""
    for metric, decided in decisions.items():
        p = decided.family.heterogeneity
        if p < ALPHA:
            own = dict(zip(decided.names, decided.family.own**0.5, strict=True))
            least, most = min(own, key=own.__getitem__), max(own, key=own.__getitem__)
            ends = listed([f"{own[name]:.2g} of {name}" for name in (most, least)])
            yield f"Of {heading(metric)} {UNEQUAL} (Bartlett, p = {p:.2g}): {ends}."

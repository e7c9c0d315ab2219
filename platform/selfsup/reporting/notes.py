"""What the numbers of a report rest on: what an interval covers, which tests are made, what they assume."""

from collections.abc import Mapping

from selfsup.reporting import stats
from selfsup.reporting.stats import Spread
from selfsup.reporting.wording import heading, listed
from selfsup.sweepspec.arms import SETTING, Study

Spreads = Mapping[str, Spread | None]

COVERS = (
    "Mean ± half of the 95 % interval over pretraining seeds, each of which draws initial weights, order, views and "
    "probe anew; it does not cover the choice of test images."
)
REPLICATES = (
    "A pretraining counts once, however often it is probed. Nothing is claimed of an arm with one seed, nor where the "
    f"deviation between seeds has fewer than {stats.DOF} degrees of freedom."
)
DUNNETT = (
    "Differences to the default: Dunnett's test, two-sided, with the deviation between seeds pooled over all arms of "
    "the study. Intervals and p are adjusted for all of them, not for the number of metrics; it assumes normal "
    "deviations of one size in all arms, and makes no use of seeds that arms have in common: where those rise and fall "
    "together, it is the more careful."
)
HSU = (
    "Marked are the highest mean and all that Dunnett's test, with each arm in turn as its reference, does not put "
    "below another: the true best is among them with 95 % (Hsu). What is not marked is worse."
)
PAIRED = (
    f"From {stats.PAIRED[0]} common seeds on, p of exact paired sign flips stands beside, adjusted by the largest "
    "statistic: it assumes symmetric differences only. With fewer it cannot fall below 0.05."
)
ALONE = "One factor was varied at a time: interactions were not tested."
INTERACTION = "Interaction: F test of what rows and columns alone leave of the crossed means; its p is not adjusted."
FLOOR = "Baselines train nothing: their intervals are their own, and they are marked in nothing."


def general(*, compared: bool, paired: bool) -> tuple[str, ...]:
    """Once a report. compared: with a default; paired: seed by seed too."""
    return (COVERS, REPLICATES, *([DUNNETT] * compared), HSU, *([PAIRED] * paired))


def of_study(study: Study, spreads: Spreads, *, grid: bool) -> str:
    """Of a table of it. grid: of crossed factors."""
    rests = _rests(f"the {len(study.arms)} arms of {study.name}", spreads)
    alone = [] if study.factors and study.factors[0].path == SETTING else [ALONE]  # of a search all were varied
    source = [f"Expected numbers: {study.source}."] if study.source else []
    return " ".join([rests, *([INTERACTION] if grid else alone), *source])


def of_methods(spreads: Spreads, *, floor: bool) -> str:
    """Of the table of methods. floor: with baselines."""
    return " ".join([_rests("all trained arms of the sweep", spreads), *([FLOOR] * floor)])


def _rests(over: str, spreads: Spreads) -> str:
    each = [
        f"{found.deviation:.2g} with {found.dof} degrees of freedom ({heading(metric)})"
        for metric, found in spreads.items()
        if found
    ]
    return f"The deviation between seeds, pooled over {over}: {listed(each) or 'not known yet'}."

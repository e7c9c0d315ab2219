"""The legend below tables has the marks that occur in them, and no others."""

from toy_sweep import arm, study, sweep

from selfsup.sweeps.report.figures import drawings
from selfsup.sweeps.report.latex import latex
from selfsup.sweeps.report.page import page
from selfsup.sweeps.report.paper import console
from selfsup.sweeps.report.table import Ablation
from selfsup.sweeps.report.tables import ablation

TIED = {"0.75, 8": [70.0, 72.0, 71.0], "0.5, 8": [70.5, 71.5, 71.1], "0.9, 8": [40.0, 41.0, 42.5]}
ALONE = {"0.75, 8": [70.0]}
ALL = (
    "* best mean   † not shown to be worse than the best   Δ to the default, of methods to the random encoder   "
    "p adjusted for all arms   [default]"
)


def made(numbers: dict[str, list[float]], *, floor: bool) -> Ablation:
    one, results = study(numbers)
    low, more = arm("random encoder", [20.0] * len(numbers["0.75, 8"]), {}, method="untrained")
    return ablation(sweep(one, baselines=[low] if floor else []), [*results, *more])


def test_every_mark_that_occurs_is_explained() -> None:
    whole = made(TIED, floor=True)
    assert console(whole).endswith(f"\n\n{ALL}")
    assert "Bold: the best mean; $^\\dagger$: not shown to be worse than the best (Hsu)." in latex(whole)
    text = " ".join(page(whole, [], {}).split())
    assert "below each other number the difference to it, with a simultaneous interval and adjusted p." in text
    assert "†: not shown to be worse than the best." in text


def test_a_mark_that_does_not_occur_is_not() -> None:
    """One arm of one seed beside an untrained encoder: nothing but a difference."""
    whole = made(ALONE, floor=True)
    assert console(whole).endswith("\n\nΔ to the random encoder")
    assert "Bold" not in latex(whole)
    text = " ".join(page(whole, [], {}).split())
    assert "A number is of one seed. Below a number the difference to its untrained encoder.</p>" in text
    assert "not shown to be worse" not in text.partition('id="notes"')[0]


def test_a_figure_explains_the_colors_that_it_has() -> None:
    captions = {drawing.kind: drawing.caption for drawing in drawings(made(TIED, floor=False))}
    assert captions["effects"] == (
        "Difference to the default with simultaneous 95 % intervals. Red: worse; hollow: cannot be told from zero."
    )
    assert captions["curves"].endswith("dashed: the default.")

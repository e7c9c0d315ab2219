"""The ends of knobs: at every bound that a knob declares, views and checks answer or refuse, and never crash."""

from collections.abc import Iterator
from typing import Any

import annotated_types
import pytest
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from selfsup.conflicts import min_below_max
from selfsup.method import load, names
from selfsup.sections import Backbone, InputShape, Setup, Train
from selfsup.views import Beside

SETUP = Setup(
    Backbone(name="vit_tiny_patch16_224", image_size=32, patch_size=8),
    Train(duration={"steps": 4}),  # type: ignore[arg-type]
    1,
    (32, 32),
    beside={"text": InputShape(1, (77,)), "audio": InputShape(1, (64, 64))},
)


def ends(field: FieldInfo) -> Iterator[float]:
    """Yield the least and the largest value of a number; next to a bound that is none itself, the nearest float."""
    tiny = 1 if field.annotation is int else 1e-300
    for bound in field.metadata:
        if isinstance(bound, annotated_types.Gt):
            yield bound.gt + tiny
        elif isinstance(bound, annotated_types.Ge):
            yield bound.ge
        elif isinstance(bound, annotated_types.Lt):
            yield bound.lt - max(tiny, 2.0**-52) if tiny < 1 else bound.lt - 1
        elif isinstance(bound, annotated_types.Le):
            yield bound.le


@pytest.mark.parametrize("name", names())
def test_every_bound_of_a_knob_is_planned_or_refused(name: str) -> None:
    kind: Any = load(name)
    for knob, field in kind.Hyper.model_fields.items():
        for end in ends(field):
            try:
                hyper = kind.Hyper(**{knob: end})
            except ValidationError:  # as it does not go with another knob
                continue
            refused = [*kind.check(hyper, SETUP), *min_below_max(hyper)]
            for view in [view for view in kind.views(hyper).specs if view.mask] if not refused else ():
                grid = SETUP.grid
                if isinstance(view, Beside):
                    grid = SETUP.grid_of(view.field) or SETUP.beside[view.field].sizes
                seen, targets = view.mask.typical(grid)
                assert seen > 0 <= targets, f"{knob}: {end}"

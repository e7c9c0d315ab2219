"""The table of `selfsup describe --backbones`: a small model of every family of timm, tried without memory."""

import pytest
import torch
from timm.models import is_model_in_modules, list_modules

from selfsup.describe import backbones
from selfsup.encoder import build
from selfsup.errors import SpecError
from selfsup.families import input_size, table
from selfsup.method import load, names
from selfsup.pipelines.feasible import check_images
from selfsup.sections import Backbone, image_shape

ROWS = {row.example: row for row in table()}
QUICK = ("beit", "eva", "vision_transformer", "swin_transformer", "hiera", "resnet", "fasternet")


def served(name: str) -> tuple[str, str, str, str, str]:
    """Return the kind of encoder, whether masked, dense and pooled methods can use it, and why not."""
    backbone = Backbone(name=name, image_size=input_size(name))
    if backbone.is_vit:
        with torch.device("meta"):
            build(backbone.model_copy(update={"pool": "mean"}))
        return "tokens", "yes", "no", "yes", ""
    shape = image_shape(backbone)
    masked = ", ".join(name for name in names() if load(name).mask_units) if backbone.is_hiera else "no"
    try:
        check_images(backbone, shape, (shape.sizes,))
    except SpecError as error:
        return "none", "no", "no", "no", _why(error)
    try:
        check_images(backbone, shape, (shape.sizes,), places=True, stages=True)
    except SpecError as error:
        return "pooled", masked, "no", "yes", _why(error)
    return "pooled", masked, "yes", "yes", ""


def _why(error: SpecError) -> str:
    return str(error).partition(": ")[2].partition("; ")[0].partition(" ")[2]


def test_every_family_of_timm_is_in_the_table() -> None:
    assert {row.family for row in ROWS.values()} == set(list_modules())
    for name, row in ROWS.items():
        assert is_model_in_modules(name, (row.family,))


@pytest.mark.parametrize("name", [name for name, row in ROWS.items() if row.family in QUICK])
def test_the_table_tells_what_a_family_serves(name: str) -> None:
    assert served(name) == ROWS[name][3:]


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, row in ROWS.items() if row.family not in QUICK])
def test_the_table_tells_what_any_other_family_serves(name: str) -> None:
    assert served(name) == ROWS[name][3:]


def test_the_table_is_shown_with_the_methods_that_it_is_about() -> None:
    lines = backbones().splitlines()
    heading, _, methods = lines[0].partition(": ")
    assert heading == "masked methods"
    assert {"dinov2", "ibot", "ijepa", "mae", "msn"} <= set(methods.split(", ")) < set(names())
    assert any(line.split()[:4] == ["resnet", "ResNet", "test_resnet", "pooled"] for line in lines)

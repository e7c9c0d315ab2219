"""Specs of two small methods, as text, and the text of every mistake in one."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from selfsup.errors import SpecError
from selfsup.knob import Knobs, knob
from selfsup.masks import RandomMask
from selfsup.parts.checks import mask_leaves_both, whole_groups
from selfsup.sections import Setup
from selfsup.spec import read


class Masked(Knobs):
    mask_ratio: float = knob(0.75, "share of tokens masked", gt=0, lt=1)
    normalize: bool = knob(False, "targets of unit variance")


class Contrast(Knobs):
    temperature: float = knob(..., "softmax temperature", gt=0)
    crop_min: float = knob(0.2, "smallest crop", gt=0, le=1)
    crop_max: float = knob(1.0, "largest crop", gt=0, le=1)
    split: int = knob(1, "groups of samples", ge=1)


def masks(hyper: Masked, setup: Setup) -> Iterator[SpecError]:
    return mask_leaves_both(RandomMask(hyper.mask_ratio), hyper.mask_ratio, setup.grid)


def splits(hyper: Contrast, setup: Setup) -> Iterator[SpecError]:
    return whole_groups("split", hyper.split, setup.share)


ALONE = {"mask_units": False, "beside": (), "one_trunk": False}
METHODS = {
    "masked": SimpleNamespace(Hyper=Masked, backbones=("vit",), **ALONE, check=masks),
    "contrast": SimpleNamespace(Hyper=Contrast, backbones=("vit", "cnn"), **ALONE, check=splits),
}


GOOD = """\
name: photos
method: masked
data: {train: here, val: there}
train: {duration: {epochs: 10}, batch: 64}
"""


def refused(text: str, *overrides: str) -> list[str]:
    """Return the lines of the error for a file s.yaml."""
    Path("s.yaml").write_text(text)
    with pytest.raises(SpecError) as caught:
        read(Path("s.yaml"), overrides)
    return str(caught.value).splitlines()


def heads(text: str, *overrides: str) -> list[str]:
    """Return its lines without source lines and carets."""
    return [line for line in refused(text, *overrides) if not line.startswith("    ")]

"""Sweep files of two small methods, as text, and the text of every mistake in one."""

from pathlib import Path
from types import SimpleNamespace
from typing import Self

import pytest
from pydantic import model_validator

from selfsup.errors import SpecError
from selfsup.knob import Choice, Knobs, Range, knob
from selfsup.sweeps.spec.sweepfile import SweepFile, read


class Masked(Knobs):
    mask_ratio: float = knob(0.75, "share of tokens masked", sweep=Range(0.4, 0.9), gt=0, lt=1)
    width: int = knob(64, "channels", sweep=Choice(32, 64), gt=0)
    heads: int = knob(2, "attention heads", gt=0)

    @model_validator(mode="after")
    def _whole_heads(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} does not divide into {self.heads} heads")
        return self


class Contrast(Knobs):
    temperature: float = knob(..., "softmax temperature", symbol="τ", sweep=Range(0.05, 1.0, log=True), gt=0)


ALONE = {"mask_units": False, "beside": (), "one_trunk": False}
METHODS = {
    "masked": SimpleNamespace(Hyper=Masked, backbones=("vit",), **ALONE, check=lambda *_: ()),
    "contrast": SimpleNamespace(Hyper=Contrast, backbones=("vit", "cnn"), **ALONE, check=lambda *_: ()),
}
MASKED = """\
name: base
method: masked
data: {train: here, val: there}
train: {duration: {epochs: 10}, batch: 64}
evals: {knn: {}, linear: {}}
"""
CONTRAST = MASKED.replace("masked", "contrast") + "hyper: {temperature: 0.1}\n"


def sweep(text: str, *overrides: str) -> SweepFile:
    Path("s.yaml").write_text(text)
    return read(Path("s.yaml"), overrides)


def refused(text: str, *overrides: str) -> list[str]:
    """Return the lines of the error, without source lines and carets."""
    with pytest.raises(SpecError) as caught:
        sweep(text, *overrides)
    return [line for line in str(caught.value).splitlines() if not line.startswith("    ")]

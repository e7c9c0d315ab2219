"""The sections `teacher` and `start` of a spec: trainings that come before its own, planned and run first.

teacher: {from: photos/vqvae}              # the result that the method learns from: codes, features, targets
start: {from: pipelines/photos/mae.yaml}   # the encoder that training starts from
start: {from: scenes/clip_flip, weights: all}   # the objective that it goes on with: encoders, heads, memories
"""

from typing import TYPE_CHECKING, Any, Literal

from pydantic import create_model

from selfsup.knob import SEEDS, Knobs, knob

SECTIONS = {
    "start": "a training whose encoder this one starts from, such as {from: photos/mae}",
    "teacher": "a training whose result the method learns from, such as {from: photos/vqvae}",
}


class Predecessor(Knobs):
    """A training that comes before a run; its settings are those of its own spec, but for `resources`."""

    if TYPE_CHECKING:
        seed: int | None
        data: Literal["same", "own"]

    @property
    def source(self) -> str:
        """Return `from`, which is a keyword of Python."""
        return str(getattr(self, "from"))

    @property
    def is_whole(self) -> bool:
        """Return whether all weights are gone on with, not the encoder's alone."""
        return bool(getattr(self, "weights", "encoder") == "all")


_FIELDS: Any = {
    "from": (str, knob(..., "a spec, by path or shipped name, or the id of a run", min_length=1)),
    "seed": (int | None, knob(0, "of its training; null: this run's own", ge=0, lt=SEEDS)),
    "data": (
        Literal["same", "own"],
        knob("same", "shards that it trains on: this run's, or those that its own spec names"),
    ),
}
_WEIGHTS: Any = {
    "weights": (
        Literal["encoder", "all"],
        knob("encoder", "the backbone's, or all of the same method: heads, other encoders, EMA and memories, too"),
    )
}
Section = create_model("Section", __base__=Predecessor, __module__=__name__, **_FIELDS)
Start = create_model("Start", __base__=Predecessor, __module__=__name__, **_FIELDS, **_WEIGHTS)
KINDS = {"start": Start, "teacher": Section}


def fields() -> dict[str, Any]:
    """Return the sections as fields of a spec."""
    return {name: (KINDS[name] | None, knob(None, doc)) for name, doc in SECTIONS.items()}

"""Text: captions of other samples, as tokens between a beginning and an end, then padding.

They lie beside an image or another sample in its shard, as .txt, or in .json under a key. Several captions of a sample
are a JSON list; training takes any of them, at random, evaluation the first. A sample without a caption counts as one
that cannot be decoded.
"""

import dataclasses
import json
import re
from collections.abc import Sequence
from os.path import expanduser
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, final

import numpy as np
from numpy.typing import NDArray
from pydantic import field_validator, model_validator

from selfsup import tokenizing
from selfsup.knob import Choice, Knobs, knob
from selfsup.modality import Boxes, Data, DecodeError, Modality, Raw, Reading
from selfsup.sections import Backbone
from selfsup.views import Views, ViewSpec

if TYPE_CHECKING:
    from torch import Tensor

    from selfsup.parts.patch import Patch
    from selfsup.parts.tokens import Tokens
    from selfsup.text_encoder import TextEncoder

PADDING = -1  # the number of no token
JSON = re.compile(r"""\s*(\{\s*["}]|\[\s*["\]])""")


class TextInput(Knobs):
    """Captions beside samples, and the encoder that reads them."""

    key: str = knob("caption", "of a caption in .json; a .txt beside it comes first", min_length=1)
    tokenizer: str = knob(
        "bytes", "bytes, clip (the BPE of CLIP, by open_clip), or a file that `tokenizers` saved", min_length=1
    )
    length: int = knob(77, "tokens of a caption, with its beginning and end", sweep=Choice(32, 64, 77), ge=3, le=2**16)
    width: int = knob(512, "channels of its encoder", sweep=Choice(256, 512, 768), gt=0)
    depth: int = knob(12, "transformer blocks of its encoder", sweep=Choice(6, 12), gt=0, le=1000)
    heads: int = knob(8, "attention heads of its encoder", gt=0)
    causal: bool = knob(True, "a token reads those before it alone, as CLIP's; else all, as SigLIP's")

    @field_validator("tokenizer")
    @classmethod
    def _whole(cls, name: str) -> str:
        return str(Path(expanduser(name)).absolute()) if tokenizing.is_file(name) else name  # noqa: PTH111 (Path's raises)

    @model_validator(mode="after")
    def _divides(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"{self.width} channels (width) do not divide over {self.heads} heads")
        return self


@dataclasses.dataclass(frozen=True, kw_only=True)
class Caption(ViewSpec):
    """A caption of a sample. is_random: any of them, for training; else the first."""

    modality: ClassVar[str] = "text"
    channels: ClassVar[int | None] = 1
    knobs: TextInput
    is_random: bool = True

    @property
    def lengths(self) -> tuple[int, ...]:
        return (self.knobs.length,)

    @property
    def geometry(self) -> tuple[Any, ...]:
        return "text", self.knobs.key, self.knobs.tokenizer, self.knobs.length, self.is_random


class TextReading(Reading):
    """The settings by which captions are read: there are none, and no statistics."""

    channels: Literal[1] = 1

    def identity(self) -> list[Any]:
        return []


@final
class Text(Modality):
    """Captions are tokenized on the host. The place of a view is the share of a sample's captions that come before."""

    suffixes, others = ("txt",), ("json",)
    axes, values = ("token",), "captions"
    given = "tokens", "(B, 1, length), their numbers, -1 for padding"
    Input, Reading, Stats = TextInput, TextReading, TextReading
    place_draws = 1
    is_companion = True
    absent = PADDING
    tower_knobs = "width", "depth", "heads", "causal"
    cheap: ClassVar[dict[str, Any]] = {"length": 8, "width": 32, "depth": 1, "heads": 2}

    def sizes(self, backbone: Backbone, knobs: TextInput) -> tuple[int, ...]:  # noqa: ARG002
        return (knobs.length,)

    def views(self, views: Views, sizes: tuple[int, ...], knobs: TextInput) -> Views:  # noqa: ARG002
        return dataclasses.replace(views, specs=tuple(Caption(knobs=knobs, mask=view.mask) for view in views.specs))

    def whole(self, sizes: tuple[int, ...], share: float, knobs: TextInput) -> Caption:  # noqa: ARG002
        return Caption(knobs=knobs, is_random=False)

    def extent(self, data: Data, reading: TextReading) -> tuple[int, ...]:  # noqa: ARG002
        return (1,)

    def place(self, view: Caption, extents: NDArray[np.integer], draws: NDArray[np.floating]) -> Boxes:
        start = draws[:, 0] if view.is_random else np.zeros(len(extents))
        return np.stack([start, np.ones(len(extents)), np.zeros(len(extents))], axis=1)

    def raw(self, view: Caption, reading: TextReading) -> tuple[tuple[int, ...], type[np.generic]]:
        return (*view.lengths, reading.channels), np.int32

    def load(self, data: Data, boxes: Boxes, views: Sequence[Caption], reading: TextReading) -> list[Raw]:  # noqa: ARG002
        asked = zip(boxes, views, strict=True)
        return [_drawn(captions(data, view.knobs.key), box[0], view.knobs) for box, view in asked]

    def augment_draws(self, view: Caption) -> int:  # noqa: ARG002
        return 0

    def augment(self, raw: "Tensor", view: Caption, draws: "Tensor") -> "Tensor":  # noqa: ARG002
        return raw.movedim(-1, 1)

    def normalize(self, values: "Tensor", view: Caption, stats: TextReading) -> "Tensor":  # noqa: ARG002
        return values

    def seen(self, values: "Tensor", patch: "Patch | None") -> "Tokens":  # noqa: ARG002
        """(B, 1, L) -> Tokens, value (B, L, 1) int64, numbers in a vocabulary, 0 where they are padding"""
        from selfsup.parts.numbered import numbered

        return numbered(values)

    def tower(self, knobs: TextInput) -> "TextEncoder":
        from selfsup.text_encoder import TextEncoder

        shape = {"length": knobs.length, "width": knobs.width, "depth": knobs.depth, "heads": knobs.heads}
        return TextEncoder(tokenizing.load(knobs.tokenizer).size, **shape, causal=knobs.causal)

    def vocabulary(self, knobs: TextInput) -> int:
        return tokenizing.load(knobs.tokenizer).size

    def contents(self, knobs: TextInput) -> dict[str, str]:
        return {"tokenizer": tokenizing.content(knobs.tokenizer)} if tokenizing.is_file(knobs.tokenizer) else {}

    def picture(self, values: "Tensor", stats: TextReading) -> NDArray[np.uint8]:
        raise NotImplementedError

    def measure(self, data: Data, reading: TextReading) -> int:  # noqa: ARG002
        return len(data)

    def statistics(self, measures: Sequence[int], reading: TextReading) -> TextReading:  # noqa: ARG002
        return reading


def captions(data: Data, key: str) -> list[str]:
    """Return the captions in a member, .txt or .json, none of them empty. Raises DecodeError where there is none.

    Text that begins as objects and lists of texts do is JSON; "[sic] a dog" is not.
    """
    try:
        text = bytes(data).decode()
        content = json.loads(text) if JSON.match(text) else text
    except ValueError as error:
        raise DecodeError(f"neither UTF-8 text nor JSON: {error}") from error
    content = content.get(key) if isinstance(content, dict) else content
    texts = [content] if isinstance(content, str) else content
    if not (isinstance(texts, list) and texts and all(isinstance(text, str) and text.strip() for text in texts)):
        raise DecodeError(f"no caption, and none under {key}")
    return [text.strip() for text in texts]


def encoded(text: str, knobs: TextInput) -> Raw:
    """-> (length, 1) int32: a text as a view of it is loaded"""
    numbers = tokenizing.load(knobs.tokenizer).tokens(text, knobs.length)
    return np.pad(np.array(numbers, np.int32), (0, knobs.length - len(numbers)), constant_values=PADDING)[:, None]


def _drawn(texts: list[str], start: float, knobs: TextInput) -> Raw:
    """Return one of the captions. start: in [0, 1), which."""
    return encoded(texts[int(start * len(texts))], knobs)

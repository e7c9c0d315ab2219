"""Models of timm by what they are: token encoders by their class, all others pooled encoders."""

import csv
import difflib
import traceback
from collections.abc import Callable
from functools import lru_cache, wraps
from importlib import resources
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import timm
from timm.layers.patch_embed import PatchEmbed
from timm.models import VisionTransformer, is_model_in_modules
from timm.models.beit import Beit
from timm.models.eva import Eva

from selfsup import outside, outside_backbone
from selfsup.blank import without_memory
from selfsup.errors import SpecError
from selfsup.recall import once

TOKEN_MODULES = ("vision_transformer", "deit", "beit", "eva")  # timm's modules that make models of these classes
TOKEN_CLASSES = (VisionTransformer, Beit, Eva)
POOLINGS = 2  # of a Hiera's resolutions while MAE trains it: one less than in evaluation, as in its authors' MAE
INSTEAD = "choose a model that ends in its pooling, such as resnet50 or convnext_tiny"
Fact = TypeVar("Fact", bool, int | None, str | None)


def _recalled(of: Callable[[str], Fact]) -> Callable[[str], Fact]:
    """Return a function that finds out the same of a model's name, and does so once for all commands."""

    @lru_cache(maxsize=256)
    @wraps(of)
    def known(name: str) -> Fact:
        return of(name) if outside.is_outside(name) else once([of.__name__, name], lambda: of(name))

    return known


@_recalled
def unknown(name: str) -> str | None:
    """Return what is wrong with a name that nobody has, and the names of timm that are near; None if it is fine."""
    if outside.is_outside(name):
        return outside_backbone.problem(name)
    if timm.is_model(name):
        return None
    near = difflib.get_close_matches(name, timm.list_models(), n=3)
    hint = f"did you mean {', '.join(near)}?" if near else "`timm.list_models()` names them all"
    return f"timm has no model {name!r}; {hint}"


class ModelFamily(NamedTuple):
    """A class of models in a module of timm: the objectives that it serves, tried on its smallest model."""

    family: str
    model_class: str
    example: str
    encoder: str  # "tokens", "pooled" or "none"
    masked: str  # "yes" or "no", as the next two; or the method that leaves out its mask units
    dense: str
    pooled: str
    why_not: str


def table() -> list[ModelFamily]:
    """Return the families of timm, in the table that tests/test_backbones.py verifies."""
    text = (resources.files("selfsup") / "backbones.csv").read_text()
    return [ModelFamily(*row) for row in list(csv.reader(text.splitlines()))[1:]]


@_recalled
def takes_tokens(name: str) -> bool:
    """Return whether timm's model of that name can be a token encoder; False for names that timm does not have."""
    known = not outside.is_outside(name) and is_model_in_modules(name, TOKEN_MODULES)
    return known and is_plain(_sketch(name))


def idle(name: str) -> dict[str, str]:
    """Return the knobs of a backbone without effect on the encoder of that name, each with the reason."""
    if outside.is_outside(name):
        return dict.fromkeys(outside_backbone.idle(name), f"on {name}")
    if is_hiera(name):
        return dict.fromkeys(("positions", "pool", "qk_norm", "class_tokens"), f"on {name}, which is no plain ViT")
    if not takes_tokens(name):
        knobs = ("patch_size", "depth", "heads", "positions", "pool", "qk_norm", "class_tokens")
        return dict.fromkeys(knobs, f"on {name}, which is no plain ViT")
    learned = {} if adds_positions(name) else {"positions": f"on {name}: its attention has them"}
    return {"stem": f"on {name}, a plain ViT"} | learned


@_recalled
def adds_positions(name: str) -> bool:
    """Return whether the token encoder of that name adds positions to its patches."""
    return _sketch(name).pos_embed is not None


@_recalled
def takes_words(name: str) -> bool:
    """Return whether the token encoder of that name knows of places by what it adds to patches alone: to words, too."""
    return isinstance(_sketch(name), VisionTransformer) and adds_positions(name)


@_recalled
def is_hiera(name: str) -> bool:
    """Return whether timm's model of that name is a Hiera; False for names that timm does not have."""
    return not outside.is_outside(name) and is_model_in_modules(name, ("hiera",))


@_recalled
def own_patch(name: str) -> int | None:
    """Return the pixels a side of a token of a ViT of that name, or of a Hiera's in training; None for others."""
    if is_hiera(name):
        return hiera_patch(_sketch(name))
    return int(_sketch(name).patch_embed.patch_size[0]) if takes_tokens(name) else None


@_recalled
def own_depth(name: str) -> int | None:
    """Return the transformer blocks of a ViT of that name; None for others."""
    if not takes_tokens(name):
        return None
    with without_memory():
        trunk: Any = timm.create_model(name, num_classes=0)
    return len(trunk.blocks)


def hiera_patch(trunk: Any) -> int:
    """Return the pixels a side of a token that a Hiera ends in while MAE trains it."""
    return int(trunk.patch_stride[0] * 2**POOLINGS)


def hiera_stages(name: str) -> tuple[int, ...]:
    """Return how many blocks the Hiera of that name has at each resolution."""
    ends = _sketch(name).stage_ends
    return tuple(end - before for before, end in pairwise((-1, *ends)))


@_recalled
def has_class_token(name: str) -> bool:
    """Return whether the token encoder of that name has a class token."""
    return _sketch(name).cls_token is not None


def takes_class_tokens(name: str) -> bool:
    """Return whether the token encoder of that name can have more class tokens: its one is alone before the patches."""
    sketch = _sketch(name)
    return type(sketch) is VisionTransformer and sketch.num_prefix_tokens == 1


def is_plain(trunk: Any) -> bool:
    """Return whether a timm model is a plain ViT: one layer of patches, positions, then blocks that take any tokens."""
    if type(trunk) not in TOKEN_CLASSES or type(trunk.patch_embed) is not PatchEmbed:
        return False
    return type(trunk) is Beit or trunk.pos_embed is not None or getattr(trunk, "rope", None) is not None


def input_size(name: str) -> int:
    """Return the pixels a side of the images that the model of that name was made for."""
    return int(_config(name).input_size[-1])


def is_sized(name: str) -> bool:
    """Return whether a model is built for images of one size, which timm then takes as `img_size`."""
    return bool(_config(name).fixed_input_size)


def _config(name: str) -> Any:
    return timm.get_pretrained_cfg(name)


def reason(error: Exception) -> str:
    """Return an error's text, or the line of timm that raised it: some of timm's assertions have no text."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "timm" in Path(frame.filename).parts]
    line = f"{Path(frames[-1].filename).name} of timm demands `{frames[-1].line}`" if frames else type(error).__name__
    return str(error).strip() or line


def unseen(name: str, size: int, error: Exception) -> SpecError:
    """Return the error of a model that cannot see images of that size: what it raised, and what to do."""
    own = size if outside.is_outside(name) else input_size(name)
    instead = f"its own size is {own}, or {INSTEAD}" if own != size else INSTEAD
    message = f"{name} cannot see images of {size} pixels: {reason(error)}; {instead}"
    return SpecError(message, "backbone.name", "backbone.image_size")


@lru_cache(maxsize=256)
def _sketch(name: str) -> Any:
    """Return a timm model without memory, of one block where it can be: the depth is no part of its class."""
    with without_memory():
        try:
            return timm.create_model(name, num_classes=0, depth=1)
        except (AssertionError, TypeError):
            return timm.create_model(name, num_classes=0)

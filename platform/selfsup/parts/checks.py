"""Checks that several objectives make of their knobs; each yields errors that name the settings at fault."""

import json
import math
from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import model_validator

from selfsup import families, tensors
from selfsup.blank import without_memory
from selfsup.encoder import build
from selfsup.errors import SpecError
from selfsup.frozen import Frozen
from selfsup.hiera import UNIT
from selfsup.knob import Knobs
from selfsup.masks import MaskRule, RandomMask
from selfsup.method import Method, TrainInfo
from selfsup.sections import Backbone, InputShape, Setup


def whole_patches(knob: str, size: int | None, backbone: Backbone) -> Iterator[SpecError]:
    """Yield an error where crops of `size` pixels a side do not divide into the patches of a plain ViT."""
    patch = backbone.patch
    if size and patch and backbone.is_vit and size % patch:
        message = f"local crops of {size} pixels (hyper.{knob}) do not divide into patches of {patch}"
        yield SpecError(message, f"hyper.{knob}", "backbone.patch_size")


def several_views(large: int, small: int) -> Iterator[SpecError]:
    """Yield an error where there is one view of a sample, which has no other to agree with."""
    if large + small < 2:
        yield SpecError(
            "one large crop and no small ones leave nothing to agree", "hyper.large_crops", "hyper.local_crops"
        )


def mask_leaves_both(
    rule: MaskRule, ratio: float, grid: tuple[int, ...] | None, *others: str, knob: str = "mask_ratio"
) -> Iterator[SpecError]:
    """Yield an error where a mask of the ratio that a knob has shows an encoder all tokens of a grid, or none.

    others: paths of further settings that the mask depends on.
    """
    if grid is None:
        return
    seen, targets = rule.typical(grid)
    if not seen or not targets:
        message = f"a mask ratio of {ratio:g} keeps {seen} of the {math.prod(grid)} tokens of a sample"
        paths = f"hyper.{knob}", *others, "backbone.patch_size", "backbone.image_size"
        yield SpecError(f"{message}; some must stay, some must go", *paths)


def leaves_out(ratio: float, setup: Setup) -> Iterator[SpecError]:
    """Yield an error where an encoder cannot leave out a share of its tokens, hyper.mask_ratio, or would leave none."""
    name = setup.backbone.name
    if not setup.backbone.is_vit:
        message = f"mask_ratio leaves out tokens of a plain ViT, and {name} is none; leave it out"
        yield SpecError(message, "hyper.mask_ratio", "backbone.name")
    else:
        yield from mask_leaves_both(RandomMask(ratio), ratio, setup.grid)


def idle(hyper: Knobs, knob: str, other: str) -> Iterator[SpecError]:
    """Yield an error where a knob is not at its default, though the value of another takes its effect away."""
    value = getattr(hyper, knob)
    if value != type(hyper).model_fields[knob].default:
        with_other = f"has no effect with {other}: {getattr(hyper, other)}"
        message = f"{knob}: {json.dumps(value)} {with_other}; leave one of the two out"
        yield SpecError(message, f"hyper.{knob}", f"hyper.{other}")


def mask_units(hyper: Any, backbone: Backbone) -> Iterator[SpecError]:
    """Yield errors where MAE's knobs are not of what a Hiera can leave out, or are of a Hiera alone."""
    name = backbone.name
    if not backbone.is_hiera:
        if hyper.multi_scale:
            message = f"{name} has one resolution, and multi_scale is of a Hiera's; leave it out"
            yield SpecError(message, "hyper.multi_scale", "backbone.name")
        return
    if hyper.mask_token:
        message = f"{name} leaves mask units out, and has no place for mask tokens; leave it out"
        yield SpecError(message, "hyper.mask_token", "backbone.name")
    if hyper.mask != "random" or hyper.mask_block != UNIT:
        message = f"{name} leaves out mask units of {UNIT} by {UNIT} tokens; expected mask: random, mask_block: {UNIT}"
        yield SpecError(message, "hyper.mask_block", "hyper.mask", "backbone.name")


def whole_squares(knob: str, side: int, grid: tuple[int, ...] | None) -> Iterator[SpecError]:
    """Yield an error where a grid does not divide into squares of `side` tokens a side."""
    if grid is not None and any(size % side for size in grid):
        message = f"a grid of {' x '.join(map(str, grid))} tokens does not divide into squares of {side} (hyper.{knob})"
        yield SpecError(message, f"hyper.{knob}", "backbone.patch_size", "backbone.image_size")


def whole_windows(knob: str, window: int | None, grid: tuple[int, ...] | None) -> Iterator[SpecError]:
    """Yield an error where a grid does not divide into windows of so many tokens a side, or of a shorter grid's own."""
    if grid is not None and window and any(size % min(window, size) for size in grid):
        message = f"a grid of {' x '.join(map(str, grid))} tokens does not divide into windows of {window}"
        yield SpecError(f"{message} (hyper.{knob})", f"hyper.{knob}", "backbone.patch_size", "backbone.image_size")


def named_axes(knob: str, mask: str, modality: str) -> Iterator[SpecError]:
    """Yield an error where samples have no time, frequency or frames, which a mask is named after."""
    absent = {"time": modality == "image", "frequency": modality != "audio", "tube": modality != "video"}
    if lacking := [name for name, is_absent in absent.items() if is_absent and name in mask]:
        yield SpecError(f"{modality} has no {lacking[0]}; use mask: random", f"hyper.{knob}", "input")


def of_clouds(hyper: Any, modality: str) -> Iterator[SpecError]:
    """Yield errors where MAE's knobs are not of what groups of points have, or are of groups of points alone."""
    if modality != "points":
        if hyper.target == "points":
            yield SpecError(f"points are of clouds, not of {modality}; leave it out", "hyper.target", "input")
        return
    if hyper.target != "points":
        message = f"groups of points have no {hyper.target} to predict; use target: points"
        yield SpecError(message, "hyper.target", "input")
    for name in ("mask", "mask_block", "decoder_window"):
        yield from idle(hyper, name, "target")


def has_boxes(hyper: Any, setup: Setup) -> Iterator[SpecError]:
    """Yield errors where samples have no two axes for the boxes of CutMix and erasing, or are clouds, which no mean of
    two is one of.
    """
    unfit = ("mixup", "cutmix", "erasing") if setup.modality == "points" else ("cutmix", "erasing")
    for name in unfit if len(setup.sizes) < 2 else ():
        if getattr(hyper, name):
            yield SpecError(f"{name} is of pictures, not of {setup.modality}; set {name}: 0", f"hyper.{name}", "input")


def of_a_grid(modality: str) -> Iterator[SpecError]:
    """Yield an error where samples are clouds, whose tokens have no values in an order of their own to predict."""
    if modality == "points":
        yield SpecError("groups of points have no order to be predicted in; use mae with target: points", "method")


def even_shares(knob: str, number: int, grid: tuple[int, ...] | None) -> Iterator[SpecError]:
    """Yield an error where the tokens of a grid do not divide into so many equal shares of two or more."""
    if grid is not None and (math.prod(grid) % number or math.prod(grid) < 2 * number):
        message = f"{math.prod(grid)} tokens do not divide into {number} equal shares of several (hyper.{knob})"
        yield SpecError(message, f"hyper.{knob}", "backbone.patch_size", "backbone.image_size")


def whole_cells(knob: str, cell: int, setup: Setup) -> Iterator[SpecError]:
    """Yield an error where the patches of images or frames do not divide into cells of so many pixels a side."""
    patch = setup.backbone.patch
    if len(setup.sizes) not in (2, 3):
        yield SpecError("gradients are of samples with rows and columns", "hyper.target")
    if patch and patch % cell:
        message = f"patches of {patch} pixels do not divide into cells of {cell} (hyper.{knob})"
        yield SpecError(message, f"hyper.{knob}", "backbone.patch_size")


def enough_values(knob: str, number: int, setup: Setup, info: TrainInfo | None) -> Iterator[SpecError]:
    """Yield an error where the values of a patch are fewer than `number`. Without info there are three channels."""
    patch, channels = setup.backbone.patch, info.channels if info else 3
    sides = InputShape(channels, setup.sizes, setup.leading).sides(patch or 0)
    values = math.prod(sides) * channels if patch else number
    if number > values:
        message = f"a patch of {values} values has no {number} components (hyper.{knob}); use fewer"
        yield SpecError(message, f"hyper.{knob}", "backbone.patch_size")


def added_positions(backbone: Backbone) -> Iterator[SpecError]:
    """Yield an error for a ViT whose positions are in its attention: none is added to patches."""
    if backbone.is_vit and "positions" in backbone.idle:
        yield SpecError(f"{backbone.name} adds no positions to its patches, so none can be dropped", "backbone.name")


def takes_words(backbone: Backbone) -> Iterator[SpecError]:
    """Yield an error for a ViT that cannot read words beside patches."""
    if backbone.is_vit and not families.takes_words(backbone.name):
        message = f"the attention of {backbone.name} places tokens by row and column, which words do not have"
        yield SpecError(f"{message}; use vit_small_patch16_224 or the like", "backbone.name")


def leaves_words(knob: str, ratio: float, setup: Setup) -> Iterator[SpecError]:
    """Yield an error where a mask of the ratio that a knob has hides all tokens of a caption."""
    shape = setup.beside.get("text")
    if shape and not int(shape.sizes[0] * (1 - ratio)):
        message = f"a share of {ratio:g} hides all {shape.sizes[0]} tokens of a caption; some must stay"
        yield SpecError(message, f"hyper.{knob}", "input.text.length")


def whole_groups(knob: str, groups: int, samples: int) -> Iterator[SpecError]:
    """Yield an error where the samples of a forward pass do not divide into so many groups."""
    if samples % groups:
        message = f"the {samples} samples of a forward pass do not divide into {groups} groups (hyper.{knob})"
        yield SpecError(message, f"hyper.{knob}", "train.batch", "resources.workers")


def enough_samples(clusters: int, num_samples: int) -> Iterator[SpecError]:
    """Yield an error where there are more clusters than samples."""
    if clusters > num_samples:
        message = f"{clusters} clusters, but data.train holds {num_samples} samples. Use fewer clusters."
        yield SpecError(message, "hyper.clusters", "data.train")


def pieces_fit(puzzle: int, piece: int, jitter: int, backbone: Backbone) -> Iterator[SpecError]:
    """Yield an error where pieces do not fit the nine cells of a puzzle, or patches of a plain ViT either of them."""
    cell = puzzle // 3
    if piece + jitter > cell:
        moved = f", which move by {jitter}," if jitter else ""
        message = f"pieces of {piece} pixels{moved} do not fit the cells of {cell} of a puzzle of {puzzle}"
        yield SpecError(message, "hyper.piece", "hyper.puzzle", *["hyper.jitter"] * bool(jitter))
    yield from whole_pieces(backbone, puzzle=puzzle, piece=piece)


def whole_pieces(backbone: Backbone, **sizes: int) -> Iterator[SpecError]:
    """Yield an error where knobs of so many pixels, an image or a piece of it, do not divide into a ViT's patches."""
    patch = backbone.patch if backbone.is_vit else None
    for name, size in sizes.items():
        if patch and size % patch:
            message = f"hyper.{name} of {size} pixels does not divide into patches of {patch}"
            yield SpecError(message, f"hyper.{name}", "backbone.patch_size")


def colors(detail: int, backbone: Backbone, channels: int) -> Iterator[SpecError]:
    """Yield an error where images have no colors, or patches of a plain ViT do not divide into places of `detail`."""
    patch = backbone.patch if backbone.is_vit else None
    if channels != 3:
        yield SpecError(f"images of {channels} channels, but colors are of RGB; pack them with 3", "data.train")
    if patch and patch % detail:
        message = f"patches of {patch} pixels do not divide into places of {detail} (hyper.detail)"
        yield SpecError(message, "hyper.detail", "backbone.patch_size")


def earlier_stage(
    kind: type[Method], teacher: Frozen, hyper: Knobs, knobs: Sequence[str], setup: Setup, channels: int
) -> Iterator[SpecError]:
    """Yield an error where an objective cannot go on with the weights of a teacher, which is to be an earlier stage.

    knobs: of `hyper` that both must share. channels: of the data.
    """
    earlier = teacher.method
    if not isinstance(earlier, kind):
        message = f"it goes on from an earlier stage of {kind.__name__}, not from {type(earlier).__name__}"
        yield SpecError(message, "teacher.from")
        return
    for name in knobs:
        own, other = getattr(hyper, name), getattr(earlier.hyper, name)
        if own != other:
            yield SpecError(f"{other} in the stage that it goes on from, not {own}", f"hyper.{name}", "teacher.from")
    with without_memory():
        bare = setup.backbone.model_copy(update={"weights": None})
        wanted = build(bare, shape=InputShape(channels, setup.sizes)).trunk.state_dict()
    if problem := tensors.mismatches(earlier.backbone.trunk.state_dict(), wanted):
        yield SpecError(f"the encoder of the stage that it goes on from does not fit: {problem}", "backbone", "teacher")


def whole_heads(part: str) -> Any:
    """Return a validator of knobs: it raises ValueError where the channels of a part do not divide into its heads."""

    def check(knobs: Any) -> Any:
        width, heads = getattr(knobs, f"{part}_width"), getattr(knobs, f"{part}_heads")
        if width % heads:
            raise ValueError(f"{part}_width {width} does not divide into {heads} {part}_heads")
        return knobs

    return model_validator(mode="after")(check)


def a_code_a_token(tokenizer: Frozen, setup: Setup) -> Iterator[SpecError]:
    """Yield an error where the codes of a tokenizer are not one for each token of a sample."""
    if setup.grid is None:
        return
    encoder = tokenizer.method.backbone
    own, other = (setup.grid, setup.backbone.patch), (tuple(encoder.grid), encoder.patch)
    if own != other:
        codes, tokens = (f"{'x'.join(map(str, grid))} of {patch} pixels" for grid, patch in (other, own))
        message = f"the tokenizer's codes are {codes}, the encoder's tokens {tokens}"
        yield SpecError(f"{message}; give both the same image and patch size", "teacher.from", "backbone.patch_size")

"""Checks that several objectives make of their knobs; each yields errors that name the settings at fault."""

import math
from collections.abc import Iterator

from selfsup.errors import SpecError
from selfsup.masks import MaskRule
from selfsup.sections import Backbone


def whole_patches(knob: str, size: int | None, backbone: Backbone) -> Iterator[SpecError]:
    """Yield an error where crops of `size` pixels a side do not divide into the patches of a plain ViT."""
    patch = backbone.patch_size
    if size and patch and backbone.is_vit and size % patch:
        message = f"local crops of {size} pixels (hyper.{knob}) do not divide into patches of {patch}"
        yield SpecError(message, f"hyper.{knob}", "backbone.patch_size")


def mask_leaves_both(rule: MaskRule, ratio: float, grid: tuple[int, ...] | None) -> Iterator[SpecError]:
    """Yield an error where a mask of hyper.mask_ratio shows an encoder all tokens of a grid, or none."""
    if grid is None:
        return
    seen, targets = rule.typical(grid)
    if not seen or not targets:
        message = f"a mask ratio of {ratio:g} keeps {seen} of the {math.prod(grid)} tokens of a sample"
        paths = "hyper.mask_ratio", "backbone.patch_size", "backbone.image_size"
        yield SpecError(f"{message}; some must stay, some must go", *paths)


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

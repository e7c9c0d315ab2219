"""Batches of views, as the stream delivers them to an objective on the training device. B: samples."""

from typing import NamedTuple

import torch
from torch import Tensor

from selfsup.masks import Mask
from selfsup.parts.patch import patchify
from selfsup.parts.tokens import Tokens
from selfsup.views import Crop, Views

CHANNELS = 3


class View(NamedTuple):
    """One view of every sample of a batch.

    modality: the kind of its data: "image". value: Tokens for a token encoder, normalized images (B, C, H, W) for a
    pooled one. mask: what its rule drew: an IndexMask where tokens are left out, a BoolMask where they are replaced.
    box: (B, 7) the part of the image that it shows, in pixels: top, left, height, width; 1 if it is mirrored, left to
    right; then the image's own height and width.
    """

    modality: str
    value: Tokens | Tensor
    mask: Mask | None
    box: Tensor


class Batch(NamedTuple):
    """Samples in all their views.

    sample: (B,) int64, the number of each sample in its data set. label: (B,) int64, its class; -1 where it has none.
    draws: (B, Views.draws) uniform in [0, 1).
    """

    views: tuple[View, ...]
    sample: Tensor
    label: Tensor
    draws: Tensor


def blank_batch(views: Views, patch: int | None, samples: int, device: torch.device | str = "cpu") -> Batch:
    """Return a batch of zeros with masks of typical size. patch: pixels a side of a token; None: images stay whole."""
    number = torch.zeros(samples, dtype=torch.int64, device=device)
    return Batch(
        views=tuple(_blank_view(crop, patch, samples, device) for crop in views.crops),
        sample=number,
        label=number,
        draws=torch.zeros(samples, views.draws, device=device),
    )


def _blank_view(crop: Crop, patch: int | None, samples: int, device: torch.device | str) -> View:
    assert crop.size, "give crops their sizes: see `views.sized`"
    images, box = torch.zeros(samples, CHANNELS, crop.size, crop.size, device=device), torch.zeros(samples, 7)
    if patch is None:
        return View(crop.modality, images, None, box.to(device))
    side = crop.size // patch
    mask = crop.mask.blank(samples, (side, side), device) if crop.mask else None
    return View(crop.modality, patchify(images, patch), mask, box.to(device))

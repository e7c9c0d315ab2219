"""Batches of views, as the stream delivers them to an objective on the training device. B: samples."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor

from selfsup import modality
from selfsup.evaluator import METRIC
from selfsup.masks import Mask
from selfsup.parts.patch import Patch
from selfsup.parts.tokens import Tokens
from selfsup.views import MapSpec, Views, ViewSpec


class View(NamedTuple):
    """One view of every sample of a batch.

    modality: the kind of its data: "image". value: Tokens for a token encoder, normalized samples (B, C, *S) for a
    pooled one. mask: what its rule drew: an IndexMask where tokens are left out, a BoolMask where they are replaced.
    box: (B, 3A + 1) the part of the sample that it shows: the start along each of A axes, the extent along each; 1 if
    it is mirrored, the last axis reversed; then the sample's own extents. Of an image in pixels, rows before columns.
    Numbers of a pose stand before these extents, where a modality has such. has: (B,) bool, the samples that do not
    lack it, on the CPU always, so that the host knows it without waiting for the device; None: all.
    """

    modality: str
    value: Tokens | Tensor
    mask: Mask | None
    box: Tensor
    has: Tensor | None = None

    @property
    def rows(self) -> Tensor:
        """-> (R,) int64: the numbers, in the batch, of the samples that have it"""
        has = [True] * len(self.box) if self.has is None else self.has.tolist()
        numbers = [number for number, is_there in enumerate(has) if is_there]
        return torch.tensor(numbers, dtype=torch.int64, device=self.box.device)


class Batch(NamedTuple):
    """Samples in all their views.

    sample: (B,) int64, the number of each sample in its data set. label: (B,) int64, its class; -1 where it has none.
    draws: (B, Views.draws) uniform in [0, 1). maps: (B, S, S) each, in the order of Views.maps, of what views[0] shows:
    float32 depth, others int64.
    """

    views: tuple[View, ...]
    sample: Tensor
    label: Tensor
    draws: Tensor
    maps: tuple[Tensor, ...] = ()


class Layout(NamedTuple):
    """The cut of samples of a modality. channels: values of a point. patch: points along each axis of a token."""

    channels: int
    patch: Patch | None


def blank_batch(
    views: Views,
    patch: Patch | None,
    samples: int,
    device: torch.device | str = "cpu",
    channels: int = 3,
    beside: Mapping[str, Layout] = MappingProxyType({}),
) -> Batch:
    """Return a batch of zeros with masks of typical size.

    patch: points of a token along each axis; None: samples stay whole. beside: of other modalities.
    """
    layouts = [beside.get(view.modality, Layout(channels, patch)) for view in views.specs]
    number = torch.zeros(samples, dtype=torch.int64, device=device)
    return Batch(
        views=tuple(_blank_view(*of, samples, device) for of in zip(views.specs, layouts, strict=True)),
        sample=number,
        label=number,
        draws=torch.zeros(samples, views.draws, device=device),
        maps=tuple(_blank_map(spec, views.specs[0], samples, device) for spec in views.maps),
    )


def _blank_map(spec: MapSpec, view: ViewSpec, samples: int, device: torch.device | str) -> Tensor:
    kind = torch.float32 if spec.name in METRIC else torch.int64
    return torch.zeros(samples, *view.lengths, dtype=kind, device=device)


def _blank_view(view: ViewSpec, layout: Layout, samples: int, device: torch.device | str) -> View:
    value = torch.zeros(samples, view.channels or layout.channels, *view.lengths, device=device)
    kind = modality.load(view.modality)
    box = torch.zeros(samples, 3 * len(view.lengths) + 1 + kind.pose, device=device)
    seen = kind.seen(value, layout.patch)
    if isinstance(seen, Tensor):
        return View(view.modality, seen, None, box)
    return View(view.modality, seen, view.mask.blank(samples, seen.grid, device) if view.mask else None, box)

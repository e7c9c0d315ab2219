"""Columns of the stream to batches on the training device."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import chain, pairwise
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from selfsup import modality
from selfsup.augmentation import OwnAugmentation
from selfsup.batch import Batch, Layout, View
from selfsup.masks import Mask, MaskRule
from selfsup.parts.patch import Patch
from selfsup.parts.tokens import Grid
from selfsup.pipelines.data.philox import DRAW, MASK, OWN, PHOTO, STEP_MASK, uniform
from selfsup.views import Views, ViewSpec

Columns = dict[str, Any]  # of arrays, or of tensors on the training device
Device = torch.device | str
Draw = Callable[[int], Tensor]  # a number of draws -> (n, draws)


def collate(
    columns: Columns,
    views: Views,
    *,
    seed: int,
    step: int,
    patch: Patch | None,
    stats: Mapping[str, Any],
    device: Device,
    own: OwnAugmentation | None = None,
    beside: Mapping[str, Layout] = MappingProxyType({}),
) -> Batch:
    """Make a Batch of columns `view0`... (n, *S, C), `box0`... (n, 3A + 1), int64 `index`, `epoch` and `label` (n,).

    `map0`... (n, S, S) are there, too, where views have maps. Each sample is a function of its own row, the seed and
    the step, however rows are put together into batches; of the step only where a mask rule shares draws among all
    samples of a step. patch: points of a token along each axis; None for an encoder that takes samples whole. stats: of
    each modality, from the manifest. own: the user's, of samples, after all others. beside: how other modalities are
    cut.
    """
    draw, shared = partial(_draw, columns, seed), partial(_shared, seed, step)
    made: list[View] = []
    for number, view in enumerate(views.specs):
        raw = _put(columns[f"view{number}"], device)
        kind, layout = modality.load(view.modality), beside.get(view.modality)
        value = _augmented(raw, number, view, draw, own if own and own.changes(number) and not layout else None)
        value = kind.normalize(value, view, stats[view.modality])
        seen, box = kind.seen(value, layout.patch if layout else patch), columns[f"box{number}"]
        draws = partial(draw, MASK + 16 * number), partial(shared, STEP_MASK + 16 * number)
        made.append(
            View(
                modality=view.modality,
                value=seen,
                mask=drawn_mask(view.mask, None if isinstance(seen, Tensor) else seen.grid, *draws, device),
                box=_put(box, device),
                has=_has(box),
            )
        )
    return Batch(
        views=tuple(made),
        sample=_put(columns["index"], device),
        label=_put(columns["label"], device),
        draws=draw(DRAW, views.draws).to(device),
        maps=tuple(_map(columns[f"map{number}"], device) for number in range(len(views.maps))),
    )


def _has(box: NDArray[Any] | Tensor) -> Tensor | None:
    """(n, 3A + 1) -> (n,) bool, on the CPU: the samples that have a view; None where all do"""
    has = torch.as_tensor(box[:, -1] > 0)
    return None if has.all() else has


def _map(column: NDArray[Any] | Tensor, device: Device) -> Tensor:
    values = _put(column, device)
    return values if values.is_floating_point() else values.long()


def _augmented(
    raw: Tensor, number: int, view: ViewSpec, draw: Callable[[int, int], Tensor], own: OwnAugmentation | None
) -> Tensor:
    """(B, *S, C) -> (B, C, *S), changed as the method asks, then by the user. draw: (purpose, draws) -> (B, draws)"""
    kind = modality.load(view.modality)
    value = kind.augment(raw, view, draw(PHOTO + 16 * number, kind.augment_draws(view)))
    if own is None:
        return value
    draws = draw(OWN + 16 * number, own.num_draws(value.shape[1]))
    return own.apply(value, _put(draws.numpy(), value.device))


def drawn_mask(rule: MaskRule | None, grid: Grid | None, own: Draw, shared: Draw, device: Device) -> Mask | None:
    """Draw the masks of a view of this grid. own, shared: draws of each sample, and of the step."""
    if rule is None:
        return None
    assert grid, "masking needs tokens: give a patch size"
    first = rule.num_shared(grid)
    noise = own(rule.num_draws(grid) - first)
    if first:
        noise = torch.cat([shared(first).expand(len(noise), -1), noise], dim=1)
    return rule.draw(noise, grid, device)


def ahead(rows: Iterator[Columns], device: Device) -> Iterator[Columns]:
    """Yield the rows; on CUDA with their views there already, each copied while the one before it is used."""
    if torch.device(device).type != "cuda":
        yield from rows
        return
    side = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    for row, _ in pairwise(chain((_copied(row, device, side) for row in rows), [None])):
        assert row is not None
        columns, copied = row
        now = torch.cuda.current_stream(device)
        now.wait_event(copied)
        for column in columns.values():
            if isinstance(column, Tensor):
                column.record_stream(now)
        yield columns


def _copied(columns: Columns, device: Device, side: torch.cuda.Stream) -> tuple[Columns, torch.cuda.Event]:
    with torch.cuda.stream(side):
        made = {name: _put(c, device) if name.startswith("view") else c for name, c in columns.items()}
    return made, side.record_event()


def _draw(columns: Columns, seed: int, purpose: int, draws: int) -> Tensor:
    """-> (n, draws) in [0, 1), on the CPU, counted by epoch and sample"""
    epoch, index = columns["epoch"], columns["index"]
    return torch.from_numpy(uniform(seed=seed, epoch=epoch, index=index, purpose=purpose, draws=draws))


def _shared(seed: int, step: int, purpose: int, draws: int) -> Tensor:
    """-> (1, draws) in [0, 1), on the CPU, counted by step: the same on all workers"""
    once = np.zeros(1, np.int64)
    return torch.from_numpy(uniform(seed=seed, epoch=once, index=once + step, purpose=purpose, draws=draws))


def _put(column: NDArray[Any] | Tensor, device: Device) -> Tensor:
    """Copy a column to the device, without waiting for work that is queued there."""
    if isinstance(column, Tensor):
        return column.to(device)
    tensor = torch.from_numpy(np.require(column, requirements=["C", "W"]))  # Ray's columns are read-only
    return tensor.pin_memory().to(device, non_blocking=True) if torch.device(device).type == "cuda" else tensor

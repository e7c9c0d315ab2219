"""Transformations of images and clips for pretext tasks. Random numbers are arguments.

N: samples, C: channels, S: points along each of A axes, P: parts of a sample.
"""

import itertools
import math
from collections.abc import Callable
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from selfsup.parts.precision import no_autocast
from selfsup.parts.tokens import places

PUZZLE = 3 * 3  # pieces


def pieces(images: Tensor, draws: Tensor, *, piece: int | None = None, jitter: int | None = None) -> Tensor:
    """(N, C, S, S), (N, 18) in [0, 1) -> (N, 9, C, p, p): from each cell of a 3x3 grid a piece somewhere within it.

    Noroozi and Favaro's jigsaw puzzle (arXiv 1603.09246): pieces of 64 pixels from cells of 85, so that no edge goes
    on from one piece to the next; for other sizes in this proportion. piece: p instead. jitter: pixels that a piece
    may move, around the middle of its cell; None: as far as the cell goes.
    """
    cell = images.shape[2] // 3
    piece = cell * 64 // 85 if piece is None else piece
    room = cell - piece if jitter is None else jitter
    assert piece + room <= cell, f"pieces of {piece} pixels that move by {room} do not fit cells of {cell}"
    within = (draws.view(-1, PUZZLE, 2) * (room + 1)).long().clamp_max(room) + (cell - piece - room) // 2
    return parts_at(images, cell * places((3, 3), images.device) + within, (piece, piece)).contiguous()


def parts_at(x: Tensor, corner: Tensor, sides: tuple[int, ...]) -> Tensor:
    """(N, C, *S), (N, P, A) int64 -> (N, P, C, *sides): the parts of each sample that begin at these points."""
    rank = len(sides)
    sample = torch.arange(len(x), device=x.device).view(-1, *[1] * (1 + rank))
    along = [
        (corner[..., axis, None] + torch.arange(side, device=x.device)).view(
            *corner.shape[:2], *(side if other == axis else 1 for other in range(rank))
        )
        for axis, side in enumerate(sides)
    ]
    return x.movedim(1, -1)[sample, *along].movedim(-1, 2)


def at_each_piece(embed: Callable[[Tensor], Tensor], cut: Tensor) -> Tensor:
    """(N, P, C, *S) -> (N, P, D): embeddings of all pieces, which go to the encoder as P views of N samples."""
    embedded = embed(cut.transpose(0, 1).flatten(0, 1))
    return embedded.view(cut.shape[1], len(cut), -1).transpose(0, 1)


def standardized(images: Tensor) -> Tensor:
    """(..., C, H, W) -> the same, each image of mean 0 and deviation 1, so that these tell nothing of its place."""
    var, mean = torch.var_mean(images, dim=(-3, -2, -1), keepdim=True, correction=0)
    return (images - mean) / (var + 1e-6).sqrt()


def one_channel(images: Tensor, draws: Tensor) -> Tensor:
    """(..., C, H, W), (...) in [0, 1) -> the same: one channel of each image, of mean 0; the others are 0 everywhere.

    Doersch, Gupta and Efros (arXiv 1505.05192), section 3.1, "color dropping", against chromatic aberration.
    """
    channels = images.shape[-3]
    kept = (draws * channels).long().clamp_max(channels - 1)[..., None] == torch.arange(channels, device=images.device)
    centered = images - images.mean(dim=(-2, -1), keepdim=True)
    return torch.where(kept[..., None, None], centered, 0.0)


@cache
def permutations(number: int, length: int = PUZZLE) -> NDArray[np.uint8]:
    """-> (number, length): orders of so many pieces that differ from each other in as many places as can be.

    Algorithm 1 of Noroozi and Favaro (arXiv 1603.09246): next comes an order of the largest mean Hamming distance from
    those chosen so far; of equal ones the first in an order of all that is drawn once.
    """
    every = np.array(list(itertools.permutations(range(length))), np.uint8)
    assert number <= len(every), f"{length} pieces have {len(every)} orders, not {number}"
    places = np.ascontiguousarray(np.random.default_rng(0).permutation(every).T)  # a row a place: compared faster
    agreements, chosen = np.zeros(len(every), np.int32), [0]
    while len(chosen) < number:
        alike = np.zeros(len(every), np.uint8)
        for place in places:
            alike += (place == place[chosen[-1]]).view(np.uint8)
        agreements += alike
        agreements[chosen[-1]] = np.iinfo(np.int32).max // 2  # never again
        chosen.append(int(agreements.argmin()))
    return places.T[chosen]


def shuffled(x: Tensor, draws: Tensor) -> Tensor:
    """(N, P, D), (N, P) -> (N, P, D): each row of P in an order of its own."""
    return x.take_along_dim(draws.argsort(dim=1, stable=True)[..., None], dim=1)


def turned(images: Tensor, draws: Tensor) -> Tensor:
    """(N, C, S, S), (N,) in [0, 1) -> (N, C, S, S): each by 0, 90, 180 or 270 degrees."""
    quarters = torch.stack([images.rot90(number, (2, 3)) for number in range(4)])
    return quarters[(4 * draws).long().clamp_max(3), torch.arange(len(images), device=images.device)]


def mirrored(images: Tensor, draws: Tensor) -> Tensor:
    """(..., C, H, W), (...) in [0, 1) -> (..., C, H, W): half of the images, left to right."""
    return torch.where(draws[..., None, None, None] < 0.5, images.flip(-1), images)


def in_order(features: Tensor, orders: Tensor, draws: Tensor) -> tuple[Tensor, Tensor]:
    """(N, P, D), (K, P) int64, (N,) in [0, 1) -> (N, P * D), (N,): parts side by side, in one of K orders; which."""
    number = (draws * len(orders)).long().clamp_max(len(orders) - 1)
    return features.take_along_dim(orders[number][..., None], dim=1).flatten(1), number


def replicated(x: Tensor, draws: Tensor) -> Tensor:
    """(N, C, *S), (N,) in [0, 1) -> (N, C, *S): one channel of each sample in place of all.

    Kim, Cho and Kweon (arXiv 1811.09795), "channel replication".
    """
    channel = (draws * x.shape[1]).long().clamp_max(x.shape[1] - 1)
    return x[torch.arange(len(x), device=x.device), channel][:, None].expand_as(x)


def inner_boxes(draws: Tensor, side: int, area: tuple[float, float]) -> Tensor:
    """(..., 4) in [0, 1) -> (..., 4): top, left, height, width within a square of `side` pixels, in whole pixels.

    area: its range, as a share of the square's; the ratio of its sides is up to 4/3, either way, as that of
    torchvision's RandomResizedCrop, but what is longer than the square is cut off.
    """
    size, aspect, *corner = draws.unbind(-1)
    size, aspect = area[0] + (area[1] - area[0]) * size, (math.log(4 / 3) * (2 * aspect - 1)).exp()
    shape = [(side * (size * ratio).sqrt()).round().clamp(1, side) for ratio in (1 / aspect, aspect)]
    start = [(draw * (side - length + 1)).floor() for draw, length in zip(corner, shape, strict=True)]
    return torch.stack([*start, *shape], dim=-1)


def zoomed(x: Tensor, boxes: Tensor) -> Tensor:
    """(N, P, C, *S, p, p), (N, P, 4) -> the same: each part's box, resized bilinearly to the whole of it."""
    side = x.shape[-1]
    to = (torch.arange(side, device=x.device) + 0.5) / side  # of the pixels' middles
    weights = []
    for start, length in zip(boxes[..., :2].unbind(-1), boxes[..., 2:].unbind(-1), strict=True):
        inner = (to * length[..., None] - 0.5).clamp_min(0).minimum(length[..., None] - 1)
        apart = (start[..., None] + inner)[..., None] - torch.arange(side, device=x.device)
        weights.append((1 - apart.abs()).clamp_min(0))  # (N, P, to, from)
    with no_autocast(x):
        return torch.einsum("npkij,npai,npbj->npkab", x.flatten(2, -3), *weights).reshape(x.shape)

"""Transformations of images for pretext tasks. Random numbers are arguments. N: images, C: channels."""

import itertools
from collections.abc import Callable
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

PUZZLE = 3 * 3  # pieces


def pieces(images: Tensor, draws: Tensor, *, piece: int | None = None, jitter: int | None = None) -> Tensor:
    """(N, C, S, S), (N, 18) in [0, 1) -> (N, 9, C, p, p): from each cell of a 3x3 grid a piece somewhere within it.

    Noroozi and Favaro's jigsaw puzzle (arXiv 1603.09246): pieces of 64 pixels from cells of 85, so that no edge goes
    on from one piece to the next; for other sizes in this proportion. piece: p instead. jitter: pixels that a piece
    may move, around the middle of its cell; None: as far as the cell goes.
    """
    samples, channels, side, _ = images.shape
    cell = side // 3
    piece = cell * 64 // 85 if piece is None else piece
    room = cell - piece if jitter is None else jitter
    assert piece + room <= cell, f"pieces of {piece} pixels that move by {room} do not fit cells of {cell}"
    grid = images[..., : 3 * cell, : 3 * cell].reshape(samples, channels, 3, cell, 3, cell)
    cells = grid.permute(0, 2, 4, 1, 3, 5).flatten(1, 2)
    corner = (draws.view(-1, PUZZLE, 2, 1) * (room + 1)).long().clamp_max(room) + (cell - piece - room) // 2
    top, left = (corner + torch.arange(piece, device=images.device)).unbind(2)  # (N, 9, p) each
    return cells.take_along_dim(top[:, :, None, :, None], dim=3).take_along_dim(left[:, :, None, None], dim=4)


def at_each_piece(embed: Callable[[Tensor], Tensor], cut: Tensor) -> Tensor:
    """(N, P, C, p, p) -> (N, P, D): embeddings of all pieces, which go to the encoder as P views of N samples."""
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

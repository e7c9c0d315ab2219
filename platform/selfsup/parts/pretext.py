"""Transformations of images for pretext tasks. Random numbers are arguments. N: images."""

import torch
from torch import Tensor

PUZZLE = 3 * 3  # pieces


def pieces(images: Tensor, draws: Tensor) -> Tensor:
    """(N, C, S, S), (N, 18) in [0, 1) -> (N, 9, C, p, p): from each cell of a 3x3 grid a piece somewhere within it.

    Noroozi and Favaro's jigsaw puzzle (arXiv 1603.09246): pieces of 64 pixels from cells of 85, so that no edge goes
    on from one piece to the next; for other sizes in this proportion.
    """
    samples, channels, side, _ = images.shape
    cell = side // 3
    piece = cell * 64 // 85
    grid = images[..., : 3 * cell, : 3 * cell].reshape(samples, channels, 3, cell, 3, cell)
    cells = grid.permute(0, 2, 4, 1, 3, 5).flatten(1, 2)
    corner = (draws.view(-1, PUZZLE, 2, 1) * (cell - piece + 1)).long().clamp_max(cell - piece)
    top, left = (corner + torch.arange(piece, device=images.device)).unbind(2)  # (N, 9, p) each
    return cells.take_along_dim(top[:, :, None, :, None], dim=3).take_along_dim(left[:, :, None, None], dim=4)


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

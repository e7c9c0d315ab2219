"""Patches of images with a map of classes as samples of dense protocols, and the scores of maps that are guessed.

Tokens and maps may lie on disk, and are read a part at a time. P: patches, numbered through all images; L: pixels of a
patch; C: classes.
"""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from selfsup.bounded import at_once
from selfsup.evaluator import Map
from selfsup.parts.linear_heads import held_out

PIXELS = 2**24  # that are usually held at once: 128 MiB


class Patches:
    """The patches of images. tokens: (N, T, D). maps: (N, S, S), -1 where there is no class."""

    def __init__(self, tokens: NDArray[np.float32], maps: Map) -> None:
        number, self.per_image, width = tokens.shape
        self.tokens = tokens.reshape(number * self.per_image, width)
        self._grid = math.isqrt(self.per_image)
        side = maps.shape[1] // self._grid
        self.pixels_each = side**2
        self._map = maps.reshape(number, self._grid, side, self._grid, side).swapaxes(2, 3)  # (N, g, g, r, r)

    def __len__(self) -> int:
        return len(self.tokens)

    def of(self, images: Tensor) -> Tensor:
        """(n,), numbers of images -> (n T,), of their patches, in order"""
        rows: Tensor = images.sort().values[:, None] * self.per_image + torch.arange(self.per_image)
        return rows.flatten()

    def pixels(self, rows: Tensor) -> Tensor:
        """(p,) -> (p, L): the class of each pixel"""
        place = rows.cpu().numpy()
        image, token = np.divmod(place, self.per_image)
        row, column = np.divmod(token, self._grid)
        return torch.as_tensor(self._map[image, row, column].reshape(len(place), -1).astype(np.int64))

    def modes(self, rows: Tensor, classes: int) -> Tensor:
        """(p,) -> (p,): the class of most pixels, the smallest of equal ones; -1 where most have none"""
        return torch.cat([self._mode(part, classes) for part in torch.split(rows, self.at_once(classes))])

    def at_once(self, classes: int) -> int:
        """Return how many patches are held at once."""
        most: int = max(self.pixels_each, classes + 1)
        return at_once(PIXELS, most)

    def _mode(self, rows: Tensor, classes: int) -> Tensor:
        pixels = self.pixels(rows)
        counts = torch.zeros(len(rows), classes + 1, dtype=torch.int64)
        counts.scatter_add_(1, torch.where(pixels < 0, classes, pixels), torch.ones_like(pixels))
        most = counts.argmax(1)
        return torch.where(most == classes, -1, most)


def pixel_logits(logits: Tensor, side: int) -> Tensor:
    """(B, T, C) -> (B, C, S, S): those of tokens in a square grid, interpolated to pixels"""
    grid = math.isqrt(logits.shape[1])
    coarse = logits.float().mT.reshape(len(logits), -1, grid, grid)
    return torch.nn.functional.interpolate(coarse, (side, side), mode="bilinear")


def confusion(true: Tensor, guess: Tensor, classes: int) -> Tensor:
    """(p, L), (p, L) or (p, 1) -> (C, C + 1): pixels of each class, guessed as each, or as none: -1

    Pixels that have no class do not count.
    """
    known = true >= 0
    guessed = torch.where(guess < 0, classes, guess).expand_as(true)[known]
    counts = torch.bincount(true[known] * (classes + 1) + guessed, minlength=classes * (classes + 1))
    return counts.reshape(classes, classes + 1)


def mean_iou(counts: Tensor) -> float:
    """(C, C + 1) -> the mean over classes, in percent: of the pixels that are or were guessed to be one, those right

    Classes that neither are nor were guessed do not count, as in scikit-learn's jaccard_score.
    """
    hits = counts.diagonal()
    union = counts.sum(1) + counts[:, :-1].sum(0) - hits
    return 100 * float((hits.double() / union)[union > 0].mean())


def accuracy(counts: Tensor) -> float:
    """(C, C + 1) -> the share of pixels that are right, in percent"""
    return 100 * float(counts.diagonal().sum().double() / counts.sum())


def held_out_images(images: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return the numbers of a tenth of the images, rounded up, and of the others, sorted."""
    tenth, rest = held_out(images, torch.Generator().manual_seed(seed))
    return tenth.sort().values, rest.sort().values

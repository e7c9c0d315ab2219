"""Histograms of oriented gradients as MaskFeat (arXiv 2112.09133) defines them, counted pixel by pixel."""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def histograms(image: NDArray[np.float64], cell: int) -> NDArray[np.float64]:
    """(H, W) -> (h, w, 9): Sobel's gradients, counted by orientation, each cell's histogram of length 1."""
    padded, (height, width) = np.pad(image, 1, mode="reflect"), image.shape
    counts = np.zeros((height // cell, width // cell, 9))
    for row in range(height):
        for column in range(width):
            around = padded[row : row + 3, column : column + 3]
            right = around[:, 0] @ [1, 2, 1] - around[:, 2] @ [1, 2, 1]
            down = around[0] @ [1, 2, 1] - around[2] @ [1, 2, 1]
            number = math.floor(math.atan2(right, down) / math.pi * 9) % 9
            counts[row // cell, column // cell, number] += math.hypot(right, down)
    lengths: NDArray[np.float64] = np.linalg.norm(counts, axis=2, keepdims=True)
    return counts / lengths


def of_patches(pixels: Tensor) -> Tensor:
    """(B, 3, 16, 16) -> (B, 16, 108): of patches of 4 by 4 pixels, cell after cell of 2 by 2, and channel by channel"""
    cells = np.array([[histograms(channel, 2) for channel in image] for image in pixels.double().numpy()])
    patches = cells.reshape(-1, 3, 4, 2, 4, 2, 9).transpose(0, 2, 4, 3, 5, 1, 6)
    return torch.from_numpy(patches.reshape(-1, 16, 108))

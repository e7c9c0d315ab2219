"""Moments of tokens that may lie on disk, of which a part is in memory at a time. T: tokens, D: channels."""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

VARIANCE = 1e-6  # added to that of a channel, as AIM's BatchNorm does
VALUES = 2**24  # numbers that are held at once in float64: 128 MiB


def moments(tokens: NDArray[np.float32], rows: Tensor, device: str | torch.device) -> tuple[Tensor, Tensor]:
    """Return mean and deviation of each channel over all tokens of these samples, (D,) each."""
    sums = torch.zeros(2, tokens.shape[2], dtype=torch.float64, device=device)
    for part in torch.split(rows, max(1, VALUES // math.prod(tokens.shape[1:]))):
        value = torch.as_tensor(tokens[part.numpy()], device=device)
        sums += torch.stack([value.double().sum((0, 1)), value.double().square().sum((0, 1))])
    mean, square = sums / (len(rows) * tokens.shape[1])
    std = ((square - mean.square()).clamp(min=0) + VARIANCE).sqrt()
    return mean.to(value.dtype), std.to(value.dtype)

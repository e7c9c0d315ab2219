"""Moments of features that may lie on disk, of which a part is in memory at a time. T: tokens, D: channels."""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from selfsup.bounded import at_once

VARIANCE = 1e-6  # added to that of a channel, as the BatchNorm of MAE's and AIM's probes does
VALUES = 2**24  # numbers that are usually held at once in float64: 128 MiB


def moments(features: NDArray[np.float32], rows: Tensor, device: str | torch.device) -> tuple[Tensor, Tensor]:
    """(N, D) or (N, T, D), (R,) -> mean and deviation of each channel over all vectors of these samples, (D,) each"""
    sums, number = torch.zeros(2, features.shape[-1], dtype=torch.float64, device=device), 0
    for part in torch.split(rows.sort().values, at_once(VALUES, math.prod(features.shape[1:]))):
        value = torch.as_tensor(features[part.numpy()], device=device).flatten(0, -2)
        sums += torch.stack([value.double().sum(0), value.double().square().sum(0)])
        number += len(value)
    mean, square = sums / number
    std = ((square - mean.square()).clamp(min=0) + VARIANCE).sqrt()
    return mean.to(value.dtype), std.to(value.dtype)

"""Noise for every value of a sample, as a pure function of two of the sample's draws: nothing large is ever drawn.

Values are counted, and each number is mixed with the draws by a hash of 32 bits: the finalizer of MurmurHash3, in
integers, which are the same on every device. B: samples.
"""

import math

import torch
from torch import Tensor

WORD = 0xFFFFFFFF
STEPS = 2**24  # that a draw may have, in single precision


def uniform(draws: Tensor, shape: tuple[int, ...], stream: int = 0) -> Tensor:
    """(B, 2) in [0, 1) -> (B, *shape), uniform in [0, 1). stream: a number; others give independent noise."""
    first, second = (draws.double() * STEPS).long()[:, :, None].unbind(1)
    number = torch.arange(math.prod(shape), device=draws.device) + stream * math.prod(shape)
    mixed = _mixed(_mixed(number * 0x9E3779B9 + first & WORD) ^ _mixed(second + STEPS))
    return ((mixed >> 8).to(draws.dtype) / STEPS).view(-1, *shape)


def gaussian(draws: Tensor, shape: tuple[int, ...]) -> Tensor:
    """(B, 2) in [0, 1) -> (B, *shape), from the standard normal distribution, by Box and Muller."""
    radius, angle = (uniform(draws, shape, stream) for stream in (0, 1))
    return (-2 * torch.log1p(-radius)).sqrt() * torch.cos(2 * math.pi * angle)


def gumbel(draws: Tensor, shape: tuple[int, ...]) -> Tensor:
    """(B, 2) in [0, 1) -> (B, *shape), from the standard Gumbel distribution, by its inverse."""
    return -(-uniform(draws, shape).clamp_min(0.5 / STEPS).log()).log()


def _mixed(word: Tensor) -> Tensor:
    """Return words of 32 bits, in which each bit of the given ones has changed about half of all."""
    word = (word ^ (word >> 16)) * 0x85EBCA6B & WORD
    word = (word ^ (word >> 13)) * 0xC2B2AE35 & WORD
    return word ^ (word >> 16)

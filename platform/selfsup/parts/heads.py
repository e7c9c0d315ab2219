"""What stands on an encoder while it trains, and is thrown away afterwards."""

import math
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def mlp(
    *widths: int, norm: bool = True, out: Literal["linear", "bias", "norm", "plain norm"] = "linear"
) -> nn.Sequential:
    """(B, widths[0]) -> (B, widths[-1]): linear layers with ReLU between them.

    norm: batch normalisation before each ReLU; a linear layer before one needs no bias. out: what the last layer is:
    linear, linear with a bias, or followed by batch normalisation with or without a scale and shift of its own.
    """
    *hidden, (last, width) = pairwise(widths)
    layers: list[nn.Module] = []
    for before, after in hidden:
        layers += [nn.Linear(before, after, bias=not norm), *([nn.BatchNorm1d(after)] if norm else []), nn.ReLU()]
    layers.append(nn.Linear(last, width, bias=out == "bias"))
    if out in ("norm", "plain norm"):
        layers.append(nn.BatchNorm1d(width, affine=out == "norm"))
    return nn.Sequential(*layers)


class Prototypes(nn.Module):
    """(B, D) -> (B, K): the cosine of each embedding with K unit vectors that are learned."""

    def __init__(self, dim: int, number: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(number, dim) / math.sqrt(dim))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(F.normalize(x.float(), dim=-1), F.normalize(self.weight, dim=1))


def xavier_linears(module: nn.Module) -> None:
    """Every linear layer inside: uniform weights by Glorot and Bengio's rule, zero biases; MAE's start."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)

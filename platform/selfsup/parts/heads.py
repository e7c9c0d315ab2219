"""Heads that stand on an encoder while it trains, and are dropped afterwards."""

from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfsup.parts.precision import no_autocast


def mlp(
    *widths: int,
    norm: bool = True,
    out: Literal["linear", "bias", "norm", "plain norm"] = "linear",
    activation: type[nn.Module] = nn.ReLU,
) -> nn.Sequential:
    """(B, widths[0]) -> (B, widths[-1]): linear layers with ReLU, or another activation, between them.

    norm: batch normalization before each of these; a linear layer before one needs no bias. out: the last layer is
    linear, linear with a bias, or followed by batch normalization with or without a scale and shift of its own.
    """
    *hidden, (last, width) = pairwise(widths)
    layers: list[nn.Module] = []
    for before, after in hidden:
        layers += [nn.Linear(before, after, bias=not norm), *([nn.BatchNorm1d(after)] if norm else []), activation()]
    layers.append(nn.Linear(last, width, bias=out == "bias"))
    if out in ("norm", "plain norm"):
        layers.append(nn.BatchNorm1d(width, affine=out == "norm"))
    return nn.Sequential(*layers)


def gelu_mlp(*widths: int, norm: bool = False) -> nn.Sequential:
    """(..., widths[0]) -> (..., widths[-1]): linear layers with GELU between them, at DINO's initial weights.

    norm: batch normalization before each GELU, for input of shape (B, widths[0]) only.
    """
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), *([nn.BatchNorm1d(after)] if norm else []), nn.GELU()]
    head = nn.Sequential(*layers[: -2 if norm else -1])
    for layer in head:
        if isinstance(layer, nn.Linear):
            nn.init.trunc_normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)
    return head


def dino_head(
    dim: int, hidden: int, bottleneck: int, outputs: int, *, norm: bool = False, lengths: bool = False
) -> nn.Sequential:
    """(..., dim) -> (..., outputs): three layers, then prototypes, `[-1]`.

    DINO (arXiv 2104.14294), section 3.1 and appendix C, whose last layer is weight-normalized. lengths: whether the
    norms of its rows are learned, or stay 1.
    """
    return nn.Sequential(
        *gelu_mlp(dim, hidden, hidden, bottleneck, norm=norm), Prototypes(bottleneck, outputs, lengths=lengths)
    )


def dinov3_head(dim: int, hidden: int, bottleneck: int, outputs: int) -> nn.Sequential:
    """(..., dim) -> (..., outputs): DINO's three layers, then a linear one, `[-1]`, of what they give at length 1.

    As DINOv3's code (arXiv 2508.10104), whose last layer has rows of any length, and begins as the others.
    """
    last = UnitLinear(bottleneck, outputs, bias=False)
    nn.init.trunc_normal_(last.weight, std=0.02)
    return nn.Sequential(*gelu_mlp(dim, hidden, hidden, bottleneck), last)


class UnitLinear(nn.Linear):
    """(..., D) -> (..., K): a linear layer of vectors at length 1, in single precision at least."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 (torch's name)
        with no_autocast(input):
            return F.linear(F.normalize(input.float(), dim=-1), self.weight)


class Prototypes(nn.Module):
    """(B, D) -> (B, K): the cosine of each embedding with K vectors that are learned, in single precision at least.

    weight: (K, D), which begins as that of nn.Linear. lengths: (K, 1) or None, learned factors of the cosines; a
    matrix, so that it decays as the weight_g of the authors of DINO does.
    """

    def __init__(self, dim: int, number: int, *, lengths: bool = False) -> None:
        super().__init__()
        self.weight = nn.Linear(dim, number, bias=False).weight
        self.lengths = nn.Parameter(torch.ones(number, 1)) if lengths else None

    def forward(self, x: Tensor) -> Tensor:
        with no_autocast(x):
            if self.lengths is None:
                rows = F.normalize(self.weight, dim=1)
            else:
                rows = torch._weight_norm(self.weight, self.lengths)  # in one pass over the weight, which is large
            return F.linear(F.normalize(x.float(), dim=-1), rows)


def xavier_linears(module: nn.Module) -> None:
    """Draw the weights of all linear layers inside by Glorot and Bengio's uniform rule, with zero biases, as MAE."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)

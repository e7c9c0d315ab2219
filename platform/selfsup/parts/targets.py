"""Targets of masked image modeling, which are made of the pixels of hidden patches.

B: batch, N: tokens, M: hidden tokens, P: values of a patch, V: values of a target.
"""

import math
from typing import Protocol

import torch.nn.functional as F
from torch import Tensor, nn

from selfsup.encoder import SparseEncoder
from selfsup.frozen import Frozen
from selfsup.parts.groups import AXES, about, centers_of, chamfer, members
from selfsup.parts.hog import BINS, drawn, hog_of_tokens
from selfsup.parts.patch import side_of, sides_of
from selfsup.parts.pca import components
from selfsup.parts.reconstruction import masked_mse, moments
from selfsup.parts.tokens import Tokens


class Target(Protocol):
    """A function of the patches that a decoder predicts. values: V."""

    values: int

    def of(self, tokens: Tokens, hide: Tensor) -> Tensor:
        """(B, M) int64 -> (B, M, V): of the tokens with these numbers."""

    def loss(self, predicted: Tensor, target: Tensor) -> Tensor:
        """(B, M, V), as of `of` -> (): averaged over the M hidden tokens, of which every sample has equally many."""

    def pixels(self, predicted: Tensor, tokens: Tokens) -> Tensor:
        """(B, N, V) -> (B, N, P): the patches that a prediction shows, in the units of the tokens."""


class PixelTarget(nn.Module):
    """Pixels of a patch, as they are or normalized by its own mean and deviation, or by those of each of its channels.

    MAE (arXiv 2111.06377), section 3, "Reconstruction target"; by channels VideoMAE (arXiv 2203.12602), in its code. A
    picture has the true patch's mean and deviation.
    """

    def __init__(self, encoder: SparseEncoder, *, normalized: bool, by_channel: bool = False) -> None:
        super().__init__()
        self.values, self.normalized = encoder.patch_values, normalized
        self.apart = self.values // math.prod(sides_of(encoder.patch, len(encoder.grid))) if by_channel else 1

    def of(self, tokens: Tokens, hide: Tensor) -> Tensor:
        target = tokens.value.take_along_dim(hide[..., None], dim=1)
        if self.normalized:
            mean, deviation = moments(target, self.apart)
            target = (target - mean) / deviation
        return target

    loss = staticmethod(masked_mse)

    def pixels(self, predicted: Tensor, tokens: Tokens) -> Tensor:
        if self.normalized:
            mean, deviation = moments(tokens.value, self.apart)
            predicted = predicted * deviation + mean
        return predicted


class PcaTarget(nn.Module):
    """The first V principal components of a patch, as `pca.components` has them.

    MAE (arXiv 2111.06377), section 4.1, "Reconstruction target", in the space of patches.
    """

    basis: Tensor

    def __init__(self, encoder: SparseEncoder, *, number: int) -> None:
        super().__init__()
        sides = sides_of(encoder.patch, len(encoder.grid))
        basis = components(number, sides=sides, channels=encoder.patch_values // math.prod(sides))
        self.values = number
        self.register_buffer("basis", basis, persistent=False)

    def of(self, tokens: Tokens, hide: Tensor) -> Tensor:
        return tokens.value.take_along_dim(hide[..., None], dim=1).float() @ self.basis

    loss = staticmethod(masked_mse)

    def pixels(self, predicted: Tensor, tokens: Tokens) -> Tensor:  # noqa: ARG002
        return predicted @ self.basis.mT


class HogTarget(nn.Module):
    """Histograms of oriented gradients of the cells of a patch, drawn as strokes. cell: pixels a side.

    MaskFeat (arXiv 2112.09133), section 3.2; of a clip those of the middle frame of each token, drawn in all of them.
    """

    def __init__(self, encoder: SparseEncoder, *, cell: int) -> None:
        super().__init__()
        *frames, self.side, _ = sides_of(encoder.patch, len(encoder.grid))
        self.patch, self.cell, self.frames = encoder.patch, cell, math.prod(frames)
        self.values = encoder.patch_values // self.frames // cell**2 * BINS

    def of(self, tokens: Tokens, hide: Tensor) -> Tensor:
        target = hog_of_tokens(tokens, patch=self.patch, cell=self.cell)
        return target.take_along_dim(hide[..., None], dim=1)

    loss = staticmethod(masked_mse)

    def pixels(self, predicted: Tensor, tokens: Tokens) -> Tensor:  # noqa: ARG002
        return drawn(predicted, patch=self.side, cell=self.cell).repeat(1, 1, self.frames)


class CloudTarget(nn.Module):
    """The points of a group, from its center on, in any order: what else is known of them is not predicted.

    Point-MAE (arXiv 2203.06604), section 3.3.
    """

    def __init__(self, encoder: SparseEncoder) -> None:
        super().__init__()
        self.size, self.channels = side_of(encoder.patch), encoder.patch_values // side_of(encoder.patch)
        self.values = AXES * self.size

    def of(self, tokens: Tokens, hide: Tensor) -> Tensor:
        return about(tokens.value.take_along_dim(hide[..., None], dim=1), self.size)[..., :AXES].flatten(2)

    def loss(self, predicted: Tensor, target: Tensor) -> Tensor:
        a, b = (cloud.float().reshape(-1, self.size, AXES) for cloud in (predicted, target))
        return chamfer(a, b)

    def pixels(self, predicted: Tensor, tokens: Tokens) -> Tensor:
        """(B, N, V) -> (B, N, P): with zeros for what is not predicted"""
        points = members(predicted, self.size) + centers_of(tokens.value)[:, :, None]
        return F.pad(points, (0, self.channels - AXES)).flatten(2)


class CodeTarget(nn.Module):
    """The code that a tokenizer gives to a patch, one of V; a picture shows what it paints of the likeliest codes.

    MAE (arXiv 2111.06377), table 1d, after BEiT.
    """

    def __init__(self, tokenizer: Frozen) -> None:
        super().__init__()
        self.tokenizer, self.values = tokenizer, tokenizer.num_codes

    def of(self, tokens: Tokens, hide: Tensor) -> Tensor:
        """(B, M) int64 -> (B, M) int64"""
        return self.tokenizer.codes(tokens).take_along_dim(hide, dim=1)

    def loss(self, predicted: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(predicted.float().flatten(0, 1), target.flatten())

    def pixels(self, predicted: Tensor, tokens: Tokens) -> Tensor:  # noqa: ARG002
        return self.tokenizer.decoded(predicted.argmax(dim=2))

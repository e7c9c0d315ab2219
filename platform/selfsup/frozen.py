"""Trained objectives that other objectives learn from: tokenizers, teachers, and what is made of their features."""

from collections.abc import Callable
from typing import Any, NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfsup.parts.patch import Patch, patchify, pixels, seen_by, unpatchify
from selfsup.parts.tokens import Grid, Tokens


class Rescale(NamedTuple):
    """Normalization by the statistics of other data. scale, shift: of each channel, of normalized values."""

    scale: tuple[float, ...]
    shift: tuple[float, ...]

    def apply(self, samples: Tensor) -> Tensor:
        """(B, C, *S) -> (B, C, *S)"""
        scale, shift = self._of(samples)
        return samples * scale + shift

    def undo(self, samples: Tensor) -> Tensor:
        """(B, C, *S) -> (B, C, *S): the inverse of `apply`"""
        scale, shift = self._of(samples)
        return (samples - shift) / scale

    def _of(self, samples: Tensor) -> list[Tensor]:
        return [samples.new_tensor(part).view(-1, *[1] * (samples.ndim - 2)) for part in self]


class Frozen(nn.Module):
    """A trained Method on the device of the one that learns from it, in evaluation mode, without gradients.

    It is no part of the learner's weights, so checkpoints leave it out. patch: points a side of the learner's tokens;
    None for samples as a whole. rescale: from the learner's normalization to its own; None where they are the same.
    targets: (num_samples, ...) what the learner's `prepare` made of its features; None in plans, and for a learner that
    reads none.
    """

    def __init__(
        self, method: Any, patch: Patch | None, rescale: Rescale | None = None, targets: Tensor | None = None
    ) -> None:
        super().__init__()
        self._hidden = [method.eval().requires_grad_(False)]  # in a list: no submodule
        self._patch, self._rescale, self.targets = patch, rescale, targets

    @property
    def method(self) -> Any:
        return self._hidden[0]

    @property
    def _encoder(self) -> Any:
        """Return the encoder that evaluation freezes, of the modality that the backbone is for."""
        return self.method.encoder(next(iter(self.method.encoders)))

    @property
    def num_codes(self) -> int:
        return int(self.method.num_codes)

    @torch.no_grad()
    def codes(self, view: Tokens | Tensor) -> Tensor:
        """-> (B, N) int64: the code of each place of its grid. view: one of the learner's, without a mask."""
        codes: Tensor = self.method.codes(self._own(view))
        return codes

    @torch.no_grad()
    def decoded(self, codes: Tensor) -> Tensor:
        """(B, N) int64 -> (B, N, P): the patches that its codes stand for, normalized as the learner's."""
        patches: Tensor = self.method.decoded(codes)
        if self._rescale is None:
            return patches
        encoder = self._encoder
        samples = unpatchify(patches, grid=encoder.grid, patch=encoder.patch)
        return patchify(self._rescale.undo(samples), encoder.patch).value

    @property
    def dim(self) -> int:
        """Return the channels of its encoder's features."""
        return int(self._encoder.dim)

    @torch.no_grad()
    def features(self, view: Tokens | Tensor, grid: Grid) -> tuple[Tensor, Tensor]:
        """-> (B, D), (B, N, D): its encoder's features of samples and of the places of a grid, in single precision.

        Places are interpolated where it has another grid. view: one of the learner's, without a mask.
        """
        pooled, places = self._encoder.pooled_and_spatial(self._own(view))
        places = places.float()
        if places.shape[2:] != grid:
            places = F.interpolate(places, size=grid, mode="bilinear")
        return pooled.float(), places.flatten(2).mT

    def _own(self, view: Tokens | Tensor) -> Tokens | Tensor:
        """Return a view of the learner as its own encoder sees it."""
        patch = self._encoder.patch
        if patch == self._patch and self._rescale is None:
            return view
        samples = pixels(view, self._patch)
        return seen_by(self._rescale.apply(samples) if self._rescale else samples, patch)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        self.method._apply(fn, recurse)
        return self

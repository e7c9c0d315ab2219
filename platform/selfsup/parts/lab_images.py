"""Normalized images and their L*a*b*. B: images."""

import torch
from torch import Tensor, nn

from selfsup.parts.color import to_lab, to_rgb
from selfsup.parts.patch import pixels
from selfsup.parts.tokens import Tokens


class LabImages(nn.Module):
    """The way from images normalized by `mean` and `std` to L*a*b* and back. No gradient passes.

    Of what an encoder sees, either half is an image: a gray one of its lightness, or one of its colors at a lightness
    of 50.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1), persistent=False)

    @torch.no_grad()
    def lab(self, view: Tokens | Tensor, patch: int | None = None) -> Tensor:
        """(B, 3, H, W), or tokens of this patch size, normalized -> (B, 3, H, W)"""
        return to_lab((pixels(view, patch) * self.std + self.mean).clamp(0, 1))

    @torch.no_grad()
    def normalized(self, lab: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, 3, H, W), normalized"""
        return (to_rgb(lab) - self.mean) / self.std

    def gray(self, lab: Tensor) -> Tensor:
        """-> (B, 3, H, W), normalized: without color"""
        return self.normalized(torch.cat([lab[:, :1], torch.zeros_like(lab[:, 1:])], dim=1))

    def colors(self, lab: Tensor) -> Tensor:
        """-> (B, 3, H, W), normalized: of one lightness"""
        return self.normalized(torch.cat([torch.full_like(lab[:, :1], 50.0), lab[:, 1:]], dim=1))

"""Mixup, CutMix and random erasing by timm, of a whole batch over all processes, as functions of given numbers.

Zhang et al., "mixup: beyond empirical risk minimization", ICLR 2018, arXiv:1710.09412; Yun et al., "CutMix", ICCV 2019,
arXiv:1905.04899; Zhong et al., "Random erasing data augmentation", AAAI 2020, arXiv:1708.04896. A box is along the last
two axes, the same in all frames of a clip, as VideoMAE's code has it (arXiv:2203.12602).

B: samples of this process, C: channels, S: points along each axis, W: processes, K: classes. Tensors on the meta device
stay as they are.
"""

from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from selfsup.parts import dist
from selfsup.timm_module import own_module, seed

MIX_DRAWS, ERASE_DRAWS = 2, 2  # numbers in [0, 1) that a sample takes: 16 bits of each


class Mixed(NamedTuple):
    """Mixed samples. images: (B, C, *S). target: (B, K). counted: (B,) bool, whether both of a pair have a label."""

    images: Tensor
    target: Tensor
    counted: Tensor


def mixed(
    images: Tensor, label: Tensor, draws: Tensor, *, mixup: float, cutmix: float, smoothing: float, classes: int
) -> Mixed:
    """(B, C, *S), (B,) int64, (B, MIX_DRAWS) -> each sample with its partner, the one as far from the batch's end.

    All samples of all processes share one weight, or one box: timm's mode `batch`. Its numbers follow from the draws of
    the first sample. mixup, cutmix: their α; 0: not used. smoothing: the share of the target that all classes share.
    """
    whole, labels = dist.gather(images), dist.gather(label)
    timm = _module("data.mixup")
    mixer = timm.Mixup(mixup, cutmix, label_smoothing=smoothing, num_classes=classes)
    seed(timm, _number(dist.gather(draws)[0]))
    flat, target = mixer(_flat(whole).clone(), labels.clamp_min(0))
    own = slice(dist.rank() * len(images), (dist.rank() + 1) * len(images))
    known = labels >= 0
    return Mixed(flat.reshape(whole.shape)[own], target[own], (known & known.flip(0))[own])


def erased(images: Tensor, draws: Tensor, share: float) -> Tensor:
    """(B, C, *S) normalized, (B, ERASE_DRAWS) -> (B, C, *S): noise in a box of some samples. share: of these."""
    if images.is_meta:
        return images
    timm, flat = _module("data.random_erasing"), _flat(images).clone()
    eraser = timm.RandomErasing(share, mode="pixel", device=images.device)
    for image, own in zip(flat, draws.cpu(), strict=True):
        number = _number(own)
        seed(timm, number)
        timm._get_pixels = _noise(number)
        eraser(image)
    return flat.reshape(images.shape)


def _flat(samples: Tensor) -> Tensor:
    """(B, C, *S) -> (B, C', H, W): as timm takes images, of which frames are channels; of one axis they stay"""
    return samples.flatten(1, -3) if samples.ndim > 4 else samples


def _noise(number: int) -> Any:
    """Return a function in place of timm's: normal numbers of a patch, drawn on the CPU, the same on every device."""

    def draw(_per_pixel: bool, _rand_color: bool, size: tuple[int, ...], dtype: torch.dtype, device: Any) -> Tensor:
        own = torch.Generator().manual_seed(number)
        return torch.randn(size, generator=own, dtype=dtype).to(device)

    return draw


@cache
def _module(name: str) -> Any:
    return own_module(name)


def _number(draws: Tensor) -> int:
    """(2,) in [0, 1) -> an int of 32 bits"""
    if draws.is_meta:
        return 0
    high, low = (int(2**16 * draw) for draw in draws.tolist())
    return high << 16 | low

"""Photometric augmentation of a batch on one CPU thread, beside torchvision v2's transforms sample by sample.

python tests/benchmarks/augment.py
"""

import os
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from statistics import median

os.environ["OMP_NUM_THREADS"] = "1"

import torch
import torchvision.transforms.v2 as T
from torch import Tensor

from selfsup.pipelines.modalities.image import PHOTO_DRAWS
from selfsup.pipelines.modalities.pixels.augment import normalize, photometric
from selfsup.views import Crop

BATCH, ROUNDS = 64, 7
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
STRONG = Crop(jitter=0.8, brightness=0.8, contrast=0.8, saturation=0.8, hue=0.2, gray=0.2, blur=0.5)
MILD = Crop(jitter=0.8, brightness=0.4, contrast=0.4, saturation=0.2, hue=0.1, gray=0.2, blur=0.1, solarize=0.2)
RECIPES = {  # of the papers, and the pixels of their crops
    "MAE, 224": (Crop(), 224),
    "SimCLR, 224": (STRONG, 224),
    "DINO's second, 224": (MILD, 224),
    "DINO's small ones, 96": (replace(MILD, blur=0.5, solarize=0.0), 96),
}


def ours(images: Tensor, crop: Crop) -> Tensor:
    """uint8 (B, H, W, 3) -> normalized (B, 3, H, W), as `collate` makes it"""
    planes = images.permute(0, 3, 1, 2).contiguous().float().div_(255)
    photometric(planes, crop, torch.rand(len(images), PHOTO_DRAWS))
    return normalize(planes, mean=MEAN, std=STD)


def torchvisions(crop: Crop, size: int) -> Callable[[Tensor], Tensor]:
    jitter = T.ColorJitter(crop.brightness, crop.contrast, crop.saturation, crop.hue)
    made = [T.RandomApply([jitter], crop.jitter), T.RandomGrayscale(crop.gray)]
    made += [T.RandomApply([T.GaussianBlur(2 * (size // 20) + 1, crop.blur_sigma)], crop.blur)]
    made += [T.RandomSolarize(128, crop.solarize), T.ToDtype(torch.float32, scale=True), T.Normalize(MEAN, STD)]
    whole = T.Compose(made)
    return lambda images: torch.stack([whole(image) for image in images])


def milliseconds(work: Callable[[Tensor], object], images: Tensor) -> float:
    """Return the milliseconds of CPU that an image takes."""
    before = time.process_time()
    work(images)
    return (time.process_time() - before) / len(images) * 1000


def main() -> None:
    torch.manual_seed(0)
    sys.stdout.write(f"{'CPU ms an image':<24}{'ours':>8}{'torchvision':>13}{'ratio':>8}\n")
    for name, (crop, size) in RECIPES.items():
        images = torch.randint(0, 256, (BATCH, size, size, 3), dtype=torch.uint8)
        planes, mine, theirs = (
            images.permute(0, 3, 1, 2).contiguous(),
            partial(ours, crop=crop),
            torchvisions(crop, size),
        )
        turns = [(milliseconds(mine, images), milliseconds(theirs, planes)) for _ in range(ROUNDS)]
        one, other = map(median, zip(*turns, strict=True))
        sys.stdout.write(f"{name:<24}{one:8.3f}{other:13.3f}{other / one:8.2f}\n")


if __name__ == "__main__":
    main()

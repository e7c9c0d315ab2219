"""Training steps at equal work: ours, and those of the example loops of transformers and lightly.

Each takes the device and the number of images, and trains on one batch of normalised images, 224 pixels a side.
Patching and masking, which our platform does in `collate`, is in our step, as it is in theirs.
"""

from collections.abc import Callable, Iterator
from itertools import repeat
from typing import Any, NamedTuple

import torch
import torchvision
from lightly.loss import NTXentLoss
from lightly.models.modules import SimCLRProjectionHead
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer
from transformers import ViTMAEConfig, ViTMAEForPreTraining

from selfsup import encoder, optim
from selfsup.method import Batch, Facts, Method, load
from selfsup.pipelines.masks import Mask, random_mask
from selfsup.pipelines.patch import patchify
from selfsup.sections import Backbone, Optim
from selfsup.train import Precision, train

IMAGE, PATCH, MASK_RATIO = 224, 16, 0.75
STEPS = 10**9  # more than anyone takes
FACTS = Facts(samples=1_281_167, classes=1000, steps=STEPS, epoch=5004)


class Loop(NamedTuple):
    """step: one of them, whole. The module is called once in it."""

    module: nn.Module
    optimizer: Optimizer
    step: Callable[[], object]


def mae(
    device: str, size: int, precision: Precision, *, backbone: str = "vit_small_patch16_224", compiled: bool = False
) -> Loop:
    [images] = views(device, size, 1)

    def batches() -> Iterator[Batch]:
        while True:
            mask = random_mask(torch.rand(size, (IMAGE // PATCH) ** 2, device=device), MASK_RATIO)
            yield batch((patchify(images, PATCH),), (mask,), size, device)

    method = load("mae")
    trunk = encoder.build(Backbone(name=backbone))
    module = method(method.Hyper(mask_ratio=MASK_RATIO), {"image": trunk}, FACTS).to(device)
    told = Optim(name="adamw", lr=1.5e-4, weight_decay=0.05, betas=(0.9, 0.95))
    return _ours(module, batches(), told, precision, compiled=compiled)


def vitmae(device: str, size: int, precision: Precision) -> Loop:
    """As transformers' Trainer does it, with the optimiser that it takes by default."""
    [images] = views(device, size, 1)
    config = ViTMAEConfig(
        hidden_size=384, num_hidden_layers=12, num_attention_heads=6, intermediate_size=1536, mask_ratio=MASK_RATIO
    )
    module = ViTMAEForPreTraining(config).to(device).train()
    optimizer = AdamW(module.parameters(), lr=1.5e-4, weight_decay=0.05, betas=(0.9, 0.95), fused=True)
    return _theirs(module, optimizer, lambda: module(images).loss, device, precision)


def simclr(device: str, size: int, precision: Precision) -> Loop:
    both = batch(views(device, size, 2), (None, None), size, device)
    method = load("simclr")
    trunk = encoder.build(Backbone(name="resnet18"))
    module = method(method.Hyper(temperature=0.5), {"image": trunk}, FACTS).to(device)
    return _ours(module, repeat(both), Optim(name="sgd", lr=0.06, momentum=0.0, weight_decay=0.0), precision)


def lightly(device: str, size: int, precision: Precision) -> Loop:
    both = views(device, size, 2)
    module = LightlySimCLR().to(device)
    return _theirs(module, SGD(module.parameters(), lr=0.06), lambda: module(both), device, precision)


class LightlySimCLR(nn.Module):
    """Of its example, with the loss inside."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(*list(torchvision.models.resnet18().children())[:-1])
        self.projection_head, self.criterion = SimCLRProjectionHead(512, 512, 128), NTXentLoss()

    def forward(self, both: tuple[Tensor, Tensor]) -> Tensor:
        first, second = (self.projection_head(self.backbone(view).flatten(start_dim=1)) for view in both)
        return self.criterion(first, second)


def batch(views: tuple[Any, ...], masks: tuple[Mask | None, ...], size: int, device: str) -> Batch:
    number, none = torch.arange(size, device=device), torch.zeros(size, 0, device=device)
    return Batch(views, masks, number, number, none, none)


def views(device: str, size: int, number: int) -> tuple[Tensor, ...]:
    return tuple(torch.randn(size, 3, IMAGE, IMAGE, device=device) for _ in range(number))


def _ours(
    method: Method, batches: Iterator[Batch], told: Optim, precision: Precision, *, compiled: bool = False
) -> Loop:
    module, optimizer = torch.compile(method) if compiled else method, optim.build(method, told)
    settings = {"start": 0, "steps": STEPS, "warmup_steps": 0, "batch_size": told.lr_batch, "seed": 0}
    steps = train(module, method, optimizer, batches, optim=told, precision=precision, **settings)
    return Loop(module, optimizer, lambda: next(steps))


def _theirs(
    module: nn.Module, optimizer: Optimizer, forward: Callable[[], Tensor], device: str, precision: Precision
) -> Loop:
    def step() -> None:
        with torch.autocast(device, dtype=torch.bfloat16, enabled=precision == "bf16"):
            loss = forward()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return Loop(module, optimizer, step)

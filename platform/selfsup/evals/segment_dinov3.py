"""Segmentation by a linear layer on frozen tokens, trained by AdamW on the loss of all pixels.

The linear protocol of Oriane Siméoni et al., "DINOv3", arXiv 2508.10104, for ADE20K, which is DINOv2's, arXiv
2304.07193: tokens of the last block after the final norm, batch normalization, a tenth of the channels dropped, a 1x1
convolution of small weights; its logits are interpolated to the pixels; AdamW at 0.001 with decay 0.001, gradients of a
norm of at most 35, batches of 16, 40,000 steps, which are 32 epochs, a warm-up of 1500, then half a cosine to 0.

Deviations: the whole image is squashed to the encoder's size, seen once, without augmentation or crop, also at test,
where windows of 512 pixels slide over theirs; pixels of no class do not count in the mean of the loss; more epochs
where images are few. Dropout after the norm, of channels of a whole image, is mmsegmentation's, from memory.
"""

import math
from collections.abc import Iterator
from types import MappingProxyType
from typing import TYPE_CHECKING

from selfsup.errors import DataError
from selfsup.evaluator import Evaluator, Features, Map, Metric, Score, check, check_map
from selfsup.knob import Knobs, knob

if TYPE_CHECKING:
    from torch import Generator, Tensor
    from torch.nn import Sequential

CLIP = 35.0
WARMUP = 1500 / 40_000  # of the steps


class SegmentDINOv3(Evaluator):
    """Mean IoU of the pixels' classes by a normalized linear layer on tokens, whose logits are interpolated."""

    reads, target = "tokens", "seg"
    metrics = MappingProxyType({"miou": Metric(), "pixels": Metric(headline=False)})
    cheap = MappingProxyType({"epochs": 1, "steps": 40, "lr": 0.01})

    class Hyper(Knobs):
        lr: float = knob(1e-3, "learning rate of AdamW", gt=0)
        weight_decay: float = knob(1e-3, "weight decay of AdamW", ge=0)
        dropout: float = knob(0.1, "share of the channels that are dropped", ge=0, lt=1)
        epochs: int = knob(32, "passes over the training images", ge=1)
        steps: int = knob(1000, "at least, in more epochs where images are few", ge=1)
        batch: int = knob(16, "images per step", ge=1)

    def __init__(self, hyper: Hyper) -> None:
        self.hyper = hyper

    def run(self, features: Features, *, seed: int, device: str = "cpu") -> Iterator[tuple[str, Score]]:
        import torch

        from selfsup.parts.dense import accuracy, confusion, mean_iou, pixel_logits

        check(features, labelled=False)
        _, val_map = check_map(features)
        head, classes = self.fit(features, seed=seed, device=device).eval(), features.classes
        counts = torch.zeros(classes, classes + 1, dtype=torch.int64)
        with torch.inference_mode():
            for tokens, own in zip(features.val, val_map, strict=True):
                logits = pixel_logits(head(torch.as_tensor(tokens, device=device))[None], own.shape[-1])
                counts += confusion(torch.as_tensor(own).long(), logits.argmax(1)[0].cpu(), classes)
        yield "miou", mean_iou(counts)
        yield "pixels", accuracy(counts)

    def fit(self, features: Features, *, seed: int, device: str = "cpu") -> "Sequential":
        """Return norm and layer, (P, D) -> (P, C), trained on train. Raises DataError where they diverge."""
        import torch

        from selfsup.parts.linear_heads import batches

        train_map, _ = check_map(features)
        draw = torch.Generator().manual_seed(seed)  # on the CPU, so that every device sees the same weights and order
        head = begun(features.train.shape[2], features.classes, draw).to(device)
        optimizer = torch.optim.AdamW(head.parameters(), lr=self.hyper.lr, weight_decay=self.hyper.weight_decay)
        total = max(self.hyper.epochs * math.ceil(len(features.train) / self.hyper.batch), self.hyper.steps)
        for step, rows in enumerate(batches(torch.arange(len(features.train)), self.hyper.batch, total, draw)):
            tokens = torch.as_tensor(features.train[rows.numpy()], device=device)
            kept = (torch.rand(len(rows), 1, tokens.shape[2], generator=draw) >= self.hyper.dropout).to(tokens)
            value = head[0](tokens.flatten(0, 1)).view_as(tokens) * kept / (1 - self.hyper.dropout)
            optimizer.zero_grad()
            backward(head[1](value), train_map[rows.numpy()])
            torch.nn.utils.clip_grad_norm_(head.parameters(), CLIP)
            optimizer.param_groups[0]["lr"] = self.hyper.lr * schedule(step, total)
            optimizer.step()
        if not all(weight.isfinite().all() for weight in head.parameters()):
            raise DataError("evaluation: the linear layer diverged; set a smaller lr")
        return head


def begun(dim: int, classes: int, draw: "Generator") -> "Sequential":
    """Return norm and layer at their initial weights."""
    import torch

    layer = torch.nn.Linear(dim, classes)
    torch.nn.init.normal_(layer.weight, std=0.01, generator=draw)
    torch.nn.init.zeros_(layer.bias)
    return torch.nn.Sequential(torch.nn.BatchNorm1d(dim), layer)


def backward(logits: "Tensor", maps: Map) -> None:
    """(B, T, C), (B, S, S) -> the gradient of the mean cross-entropy of all pixels that have a class, propagated.

    An image at a time, since logits of pixels are many.
    """
    import torch

    from selfsup.parts.dense import pixel_logits

    coarse, true = logits.detach().requires_grad_(), torch.as_tensor(maps, device=logits.device).long()
    number = (true >= 0).sum().clamp_min(1)
    for row in range(len(true)):
        fine = pixel_logits(coarse[row : row + 1], true.shape[-1])
        loss = torch.nn.functional.cross_entropy(fine, true[row : row + 1], ignore_index=-1, reduction="sum")
        torch.autograd.backward(loss / number)
    torch.autograd.backward(logits, coarse.grad)


def schedule(step: int, total: int) -> float:
    """Return the share of the rate at a step: up to 1 in the first of them, then half a cosine to 0."""
    warmup = round(WARMUP * total)
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 + 0.5 * math.cos(math.pi * (step - warmup) / max(1, total - warmup))

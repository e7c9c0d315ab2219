"""Depth by a linear layer on frozen tokens: shares of 256 bins of depth for each token, whose mean is its depth.

The linear protocol of DINOv2, arXiv 2304.07193, and DINOv3, arXiv 2508.10104, on NYU: bins spaced evenly from 1 mm to
10 m; a token's shares are its logits, cut at 0, plus 0.1, divided by their sum; the loss of AdaBins, arXiv 2011.14141,
as DINOv2 has it: the root of the variance of log differences plus 0.15 times their squared mean; AdamW at 3e-4 with
decay 1e-4, batches of 16, gradients of a norm of at most 35, a warm-up of a third of the steps. Errors are those of
each image, averaged over images: root mean square, mean of |d - d'| / d, the share of pixels within a factor 1.25.

Deviations: the whole image is squashed to the encoder's size, seen once, without augmentation, crop or mirrored copy at
test; of the last block alone; tokens are standardised over train, not over each batch; depth, not logits, is
interpolated between tokens; half a cosine to 0 after the warm-up; 25 epochs, as 38,400 steps are on NYU.
"""

import math
from collections.abc import Iterator
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from selfsup.errors import DataError
from selfsup.evaluator import Evaluator, Features, Map, Metric, Score, check, maps_of
from selfsup.knob import Knobs, knob

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Linear

    from selfsup.parts.depth_bins import DepthBins

CLIP = 35.0


class Depth(Evaluator):
    """Root mean square error in meters of depth from a linear layer on each token; delta1 in percent."""

    reads, target = "tokens", "depth"
    metrics = MappingProxyType(
        {
            "rmse": Metric(unit="m", better="min"),
            "abs_rel": Metric(unit="", better="min", headline=False),
            "delta1": Metric(headline=False),
        }
    )
    cheap = MappingProxyType({"epochs": 3, "steps": 60})

    class Hyper(Knobs):
        bins: int = knob(256, "bins of depth", ge=2)
        most: float = knob(10.0, "meters of the last bin; pixels beyond it are left out", gt=0.001)
        lr: float = knob(3e-4, "learning rate of AdamW", gt=0)
        weight_decay: float = knob(1e-4, "weight decay of AdamW", ge=0)
        epochs: int = knob(25, "passes over the training tokens", ge=1)
        steps: int = knob(1000, "at least, in more epochs where images are few", ge=1)
        batch: int = knob(16, "images per step", ge=1)

    def __init__(self, hyper: Hyper) -> None:
        self.hyper = hyper

    @property
    def bins(self) -> "DepthBins":
        from selfsup.parts.depth_bins import DepthBins

        return DepthBins(self.hyper.bins, self.hyper.most)

    def run(self, features: Features, *, seed: int, device: str = "cpu") -> Iterator[tuple[str, Score]]:
        import torch

        from selfsup.parts.moments import moments

        check(features, labelled=False)
        train_map, val_map = self.check_maps(features)
        scale = moments(features.train, torch.arange(len(features.train)), device)
        layer = self.fit(DepthSet(features.train, train_map, *scale), seed)
        val = DepthSet(features.val, val_map, *scale)
        errors: list[Tensor] = []
        with torch.inference_mode():
            for rows in torch.split(torch.arange(len(features.val)), self.hyper.batch):
                tokens, true = val.read(rows)
                guess = self.bins.guess(layer(tokens), true.shape[-1])
                errors += [self.bins.errors(*pair) for pair in zip(guess, true, strict=True)]
        rmse, abs_rel, delta1 = torch.stack(errors).nanmean(0).tolist()
        yield from (("rmse", rmse), ("abs_rel", abs_rel), ("delta1", 100 * delta1))

    def check_maps(self, features: Features) -> tuple[Map, Map]:
        """Return the maps of train and val. Raises DataError where either shows no depth in the range of the bins."""
        maps = maps_of(features)
        for part, own in zip(("train", "val"), maps, strict=True):
            if not any(self.bins.known(one).any() for one in own):
                most = f"below {self.hyper.most:g} m; set a larger most"
                raise DataError(f"evaluation: no pixel of {part} has a depth {most}")
        return maps

    def fit(self, train: "DepthSet", seed: int) -> "Linear":
        """Return the layer from tokens to logits of bins, trained by AdamW."""
        import torch

        from selfsup.parts.linear_heads import batches

        draw = torch.Generator().manual_seed(seed)  # on the CPU, so that every device sees the same weights and order
        layer = torch.nn.Linear(len(train.mean), self.hyper.bins)
        torch.nn.init.normal_(layer.weight, std=0.01, generator=draw)
        torch.nn.init.zeros_(layer.bias)
        layer.to(train.mean.device)
        optimizer = torch.optim.AdamW(layer.parameters(), lr=self.hyper.lr, weight_decay=self.hyper.weight_decay)
        total = max(self.hyper.epochs * math.ceil(len(train.tokens) / self.hyper.batch), self.hyper.steps)
        for step, rows in enumerate(batches(torch.arange(len(train.tokens)), self.hyper.batch, total, draw)):
            tokens, true = train.read(rows)
            loss = self.bins.loss(self.bins.guess(layer(tokens), true.shape[-1]), true)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(layer.parameters(), CLIP)
            optimizer.param_groups[0]["lr"] = self.hyper.lr * schedule(step, total)
            optimizer.step()
        return layer


class DepthSet(NamedTuple):
    """Images that are read as they are needed, and the scale of their tokens: (D,) each, on the device of the layer."""

    tokens: NDArray[np.float32]
    maps: Map
    mean: "Tensor"
    std: "Tensor"

    def read(self, rows: "Tensor") -> tuple["Tensor", "Tensor"]:
        """(B,) -> standardised tokens (B, T, D); depth (B, S, S)"""
        import torch

        place, device = rows.numpy(), self.mean.device
        tokens = torch.as_tensor(self.tokens[place], device=device)
        return (tokens - self.mean) / self.std, torch.as_tensor(self.maps[place], device=device)


def schedule(step: int, total: int) -> float:
    """Return the share of the rate at a step: up to 1 in a third of them, then half a cosine to 0."""
    warmup = total // 3
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 + 0.5 * math.cos(math.pi * (step - warmup) / max(1, total - warmup))

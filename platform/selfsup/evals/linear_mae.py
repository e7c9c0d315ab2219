"""MAE's linear classification of frozen features: batch normalization without weights, and a linear layer by LARS.

The protocol of Kaiming He et al., "Masked Autoencoders Are Scalable Vision Learners", CVPR 2022, arXiv 2111.06377,
appendix A.1, as in the authors' main_linprobe.py: each channel normalized by its batch, in the end by running averages;
small random weights, LARS with momentum 0.9, trust 0.001 and no weight decay, which leaves the bias alone; a rate of
0.1 at batch 256, batches of 16384, ten epochs of warm-up, half a cosine to zero, 90 epochs (50 for ViT-L and H). The
feature is the encoder's own, which for MAE's is the class token. Deviations: features are embedded once, without
augmentation or of `views` crops; where samples are fewer than a batch, each is all of them at the rate of a full one,
for `steps` at least; reported is the end of training, not the best epoch on val.
"""

import math
from collections.abc import Iterator
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from selfsup.errors import DataError
from selfsup.evaluator import Evaluator, Features, Few, Metric, Score, check
from selfsup.feature_choice import ViewKnobs
from selfsup.knob import Range, knob

if TYPE_CHECKING:
    from torch.nn import BatchNorm1d

    from selfsup.parts.linear_heads import Heads

EPSILON, TRUST = 1e-6, 0.001  # added to a variance; of LARS


class NormedHead(NamedTuple):
    """A head, G = 1, behind its normalization."""

    norm: "BatchNorm1d"
    head: "Heads"


class LinearMAE(Evaluator):
    """Top-1 of a linear layer trained at one rate on all of train: nothing is chosen."""

    classifies = True
    metrics = MappingProxyType({"top1": Metric()})
    cheap = MappingProxyType({"steps": 200})

    class Hyper(ViewKnobs):
        lr: float = knob(0.1, "learning rate at batch 256; scaled to the batch", sweep=Range(0.01, 1.0, log=True), gt=0)
        epochs: int = knob(90, "passes over the training features", ge=1)
        warmup: int = knob(10, "epochs of them in which the rate rises from zero", ge=0)
        steps: int = knob(1000, "at least, in more epochs where samples are few", ge=1)
        batch: int = knob(16384, "samples per step", ge=2)

    def __init__(self, hyper: Hyper) -> None:
        self.hyper = hyper

    @classmethod
    def lacks(cls, hyper: Hyper, labelled: int, classes: int) -> Few | None:  # noqa: ARG003
        few = f"a batch is normalized by the deviation of 2 or more samples, and train has {labelled} with a label"
        return Few("", few) if labelled < 2 else None

    def run(self, features: Features, *, seed: int, device: str = "cpu") -> Iterator[tuple[str, Score]]:
        import torch

        check(features)
        if few := self.lacks(self.hyper, len(features.train), features.classes):
            raise DataError(few.message)
        probe = self.fit(features, seed=seed, device=device)
        norm, parts = probe.norm.eval(), torch.split(torch.as_tensor(features.val, device=device), self.hyper.batch)
        with torch.inference_mode():
            guess = np.concatenate([probe.head.guesses(norm(part), features.handicap) for part in parts])
        yield "top1", features.hits(guess)

    def fit(self, features: Features, *, seed: int, device: str = "cpu") -> NormedHead:
        """Train one head. Reads nothing of val."""
        import torch

        from selfsup.optim import trust_ratios
        from selfsup.parts.linear_heads import begin, passes, sgd

        draw = torch.Generator().manual_seed(seed)  # on the CPU, so that every device sees the same order
        rows, label = torch.arange(len(features.train)), torch.as_tensor(features.train_label, device=device)
        like = torch.as_tensor(features.train[:1], device=device)
        norm = torch.nn.BatchNorm1d(like.shape[1], eps=EPSILON, affine=False).to(like)
        head = begin(like.shape[1], 1, features.classes, like, draw)
        speeds = [torch.zeros_like(weight) for weight in head]
        total = max(self.hyper.epochs * math.ceil(len(rows) / self.hyper.batch), self.hyper.steps)
        for step, (value, own) in enumerate(passes(features.tables, label, rows, self.hyper.batch, total, draw)):
            weight, bias = head.slopes(norm(value), own)
            [trust] = trust_ratios([head.weight], [weight], 0.0, trust=TRUST)
            sgd(head, speeds, (trust * weight, bias), self.rate(step / total))
        return NormedHead(norm, head)

    def rate(self, t: float) -> float:
        """Return the learning rate after a share t of training, 0 <= t < 1."""
        peak, warmup = self.hyper.lr * self.hyper.batch / 256, min(1.0, self.hyper.warmup / self.hyper.epochs)
        return peak * (t / warmup if t < warmup else 0.5 + 0.5 * math.cos(math.pi * (t - warmup) / (1 - warmup)))

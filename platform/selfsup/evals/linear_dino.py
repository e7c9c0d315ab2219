"""DINO's linear classification of frozen features: one linear layer on the class tokens of the last four blocks.

The protocol of Mathilde Caron et al., "Emerging Properties in Self-Supervised Vision Transformers", ICCV 2021, arXiv
2104.14294, as in the authors' eval_linear.py: small random weights, no normalization, SGD with momentum 0.9, no weight
decay, a rate of 0.001 at batch 256 that falls along half a cosine, 100 epochs of batches of 1024. ViT-S has the class
tokens of four blocks, which is the default; `feature: cls_mean, blocks: 1` is ViT-B's, `feature: pooled, blocks: 1` a
ResNet's. Deviations: features are embedded once, without augmentation or of `views` crops; the rate falls at each step,
not each epoch; training is longer where samples are few; reported is the end of training, not the best epoch on val.
"""

import math
from collections.abc import Iterator
from types import MappingProxyType
from typing import TYPE_CHECKING

from selfsup.evaluator import Evaluator, Features, Metric, Score, check
from selfsup.feature_choice import Pooling, ViewKnobs
from selfsup.knob import Range, knob

if TYPE_CHECKING:
    from selfsup.parts.linear_heads import Heads


class LinearDINO(Evaluator):
    """Top-1 of a linear layer trained at one rate on all of train: nothing is chosen."""

    classifies = True
    metrics = MappingProxyType({"top1": Metric()})
    cheap = MappingProxyType({"steps": 200})

    class Hyper(ViewKnobs):
        feature: Pooling = knob("cls", "pooled: the encoder's own; or class token, mean of patches, both")
        blocks: int = knob(4, "last blocks of a ViT whose features are concatenated; cls_mean: and one mean", ge=1)
        lr: float = knob(
            0.001, "learning rate at batch 256; scaled to the batch", sweep=Range(1e-4, 1.0, log=True), gt=0
        )
        epochs: int = knob(100, "passes over the training features", ge=1)
        steps: int = knob(1000, "at least, in more epochs where samples are few", ge=1)
        batch: int = knob(1024, "samples per step", ge=1)

    def __init__(self, hyper: Hyper) -> None:
        self.hyper = hyper

    def run(self, features: Features, *, seed: int, device: str = "cpu") -> Iterator[tuple[str, Score]]:
        import torch

        check(features)
        head = self.fit(features, seed=seed, device=device)
        val = torch.as_tensor(features.val, device=device)
        yield "top1", features.hits(head.guesses(val, features.handicap))

    def fit(self, features: Features, *, seed: int, device: str = "cpu") -> "Heads":
        """Train one head. Reads nothing of val."""
        import torch

        from selfsup.parts.linear_heads import begin, descend, passes

        draw = torch.Generator().manual_seed(seed)  # on the CPU, so that every device sees the same order
        rows, label = torch.arange(len(features.train)), torch.as_tensor(features.train_label, device=device)
        like = torch.as_tensor(features.train[:1], device=device)
        head = begin(like.shape[1], 1, features.classes, like, draw)
        total = max(self.hyper.epochs * math.ceil(len(rows) / self.hyper.batch), self.hyper.steps)
        steps = passes(features.tables, label, rows, self.hyper.batch, total, draw)
        descend([(slice(None), head)], steps, like.new_tensor([self.hyper.lr * self.hyper.batch / 256]), total)
        return head

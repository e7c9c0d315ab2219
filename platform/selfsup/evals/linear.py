"""Linear classification of frozen features: one linear layer trained by SGD, a grid of learning rates at once.

The protocol of Kaiming He et al., "Masked Autoencoders Are Scalable Vision Learners", CVPR 2022, arXiv 2111.06377,
appendix A.1 (standardised features, momentum 0.9, no weight decay, cosine schedule), with SGD for LARS and a grid of
rates as in Maxime Oquab et al., "DINOv2", TMLR 2024, arXiv 2304.07193. Deviations: features are embedded once, without
augmentation or of `views` crops, and standardised over all samples, not over each batch; heads begin at zero, not at
random; the rate is chosen on a tenth of train on which no head is trained, never on val, and the chosen head is the one
reported: it is not trained again on that tenth. Chosen is the lowest cross-entropy, since the accuracy of a small
held-out set jumps by chance from rate to rate.
"""

import math
from collections.abc import Iterator
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from selfsup.errors import DataError
from selfsup.evaluator import Evaluator, Features, Few, Metric, Score, all_positive, check, nothing_held_out
from selfsup.feature_choice import ViewKnobs
from selfsup.knob import knob

if TYPE_CHECKING:
    from torch import Tensor


class Probe(NamedTuple):
    """The head chosen. weight: (D, C). bias: (C,). mean, std: (D,) of the features it was trained on."""

    weight: "Tensor"
    bias: "Tensor"
    mean: "Tensor"
    std: "Tensor"
    lr: float

    def logits(self, features: "Tensor") -> "Tensor":
        """(N, D) -> (N, C)"""
        return (features - self.mean) / self.std @ self.weight + self.bias


class Linear(Evaluator):
    """Top-1 of the head with the lowest loss on held-out training samples; its learning rate is reported beside it."""

    metrics = MappingProxyType({"top1": Metric(), "lr": Metric(unit="", better=None, headline=False)})

    class Hyper(ViewKnobs):
        lrs: tuple[float, ...] = knob(
            (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3), "learning rates to choose from", min_length=1
        )
        epochs: int = knob(50, "passes over the training features", ge=1)
        batch: int = knob(256, "samples per step", ge=1)

        _positive = all_positive("lrs", "learning rate")

    def __init__(self, hyper: Hyper) -> None:
        self.hyper = hyper

    @classmethod
    def lacks(cls, hyper: Hyper, labelled: int, classes: int) -> Few | None:  # noqa: ARG003
        return nothing_held_out("a learning rate", labelled)

    def run(self, features: Features, *, seed: int, device: str = "cpu") -> Iterator[tuple[str, Score]]:
        import torch

        check(features)
        probe = self.fit(features, seed=seed, device=device)
        guess = probe.logits(torch.as_tensor(features.val, device=device)).argmax(1).cpu().numpy()
        yield "top1", guess == features.val_label
        yield "lr", probe.lr

    def fit(self, features: Features, *, seed: int, device: str = "cpu") -> Probe:
        """Train every head on nine tenths of train, choose on the last tenth. Reads nothing of val."""
        import torch

        from selfsup.parts.linear_heads import Heads, descend, held_out, passes, read
        from selfsup.parts.moments import moments

        draw = torch.Generator().manual_seed(seed)  # on the CPU, so that every device sees the same split and order
        number, label = len(features.train), torch.as_tensor(features.train_label, device=device)
        if few := self.lacks(self.hyper, number, features.classes):
            raise DataError(few.message)
        left_out, rest = held_out(number, draw)
        mean, std = moments(features.train, rest, device)
        lrs = mean.new_tensor(sorted(self.hyper.lrs))
        heads = Heads(mean.new_zeros(len(mean), len(lrs), features.classes), mean.new_zeros(len(lrs), features.classes))
        total = self.hyper.epochs * math.ceil(len(rest) / self.hyper.batch)
        steps = passes(features.tables, label, rest, self.hyper.batch, total, draw)
        descend([(slice(None), heads)], (((value - mean) / std, own) for value, own in steps), lrs, total)
        value = (read(features.train, left_out, device) - mean) / std
        best = int(heads.losses(value, label[left_out.to(device)]).argmin())
        return Probe(heads.weight[:, best], heads.bias[best], mean, std, sorted(self.hyper.lrs)[best])

"""A linear probe of frozen features: one layer by SGD at several rates, of which held-out samples choose one."""

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from selfsup.bounded import at_once
from selfsup.errors import DataError
from selfsup.evaluator import Features, Few, all_positive, nothing_held_out
from selfsup.knob import Knobs, knob

if TYPE_CHECKING:
    from torch import Tensor


LOGITS = 2**25  # that are usually held at once: 128 MiB


class ProbeKnobs(Knobs):
    """Knobs of an evaluation by a linear probe."""

    lrs: tuple[float, ...] = knob(
        (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3), "learning rates to choose from", min_length=1
    )
    epochs: int = knob(50, "passes over the training features", ge=1)
    batch: int = knob(256, "samples per step", ge=1)

    _positive = all_positive("lrs", "learning rate")


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

    def guesses(self, features: NDArray[np.float32], handicap: NDArray[np.float32]) -> NDArray[np.int64]:
        """(N, D) in memory or on disk, (C,) -> (N,): the class of the largest logit, the handicap added to each"""
        import torch

        more, rows = torch.as_tensor(handicap).to(self.bias), at_once(LOGITS, len(self.bias))
        parts = (features[start : start + rows] for start in range(0, len(features), rows))
        logits = (self.logits(torch.as_tensor(part).to(self.bias)) for part in parts)
        guess: NDArray[np.int64] = torch.cat([(part + more).argmax(1) for part in logits]).cpu().numpy()
        return guess


def lacks(labelled: int) -> Few | None:
    """Return why so many labelled training samples are too few; None where they do."""
    return nothing_held_out("a learning rate", labelled)


def fit(features: Features, hyper: ProbeKnobs, *, seed: int, device: str = "cpu") -> Probe:
    """Train every head on nine tenths of train, choose on the last tenth. Reads nothing of val. Raises DataError."""
    import torch

    from selfsup.parts.linear_heads import Heads, descend, held_out, passes
    from selfsup.parts.moments import moments

    draw = torch.Generator().manual_seed(seed)  # on the CPU, so that every device sees the same split and order
    number, label = len(features.train), torch.as_tensor(features.train_label, device=device)
    if few := lacks(number):
        raise DataError(few.message)
    left_out, rest = held_out(number, draw)
    mean, std = moments(features.train, rest, device)
    lrs = mean.new_tensor(sorted(hyper.lrs))
    heads = Heads(mean.new_zeros(len(mean), len(lrs), features.classes), mean.new_zeros(len(lrs), features.classes))
    total = hyper.epochs * math.ceil(len(rest) / hyper.batch)
    steps = passes(features.tables, label, rest, hyper.batch, total, draw)
    descend([(slice(None), heads)], (((value - mean) / std, own) for value, own in steps), lrs, total)
    best = int(heads.losses(features.train, label, left_out, lambda value: (value - mean) / std).argmin())
    return Probe(heads.weight[:, best], heads.bias[best], mean, std, sorted(hyper.lrs)[best])

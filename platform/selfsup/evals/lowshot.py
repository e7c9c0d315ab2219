"""Low-shot classification of frozen features: logistic regression on a few training samples of each class.

The protocol of Mahmoud Assran et al., "Masked Siamese Networks for Label-Efficient Learning", ECCV 2022, arXiv
2204.07141, section 5.1 and the authors' logistic_eval.py: 1, 2 or 5 images per class in three splits, or one percent of
the labels; each feature less the mean of its own channels, then of unit length; multinomial logistic regression without
intercept, a penalty of 0.0025 / N against the mean loss of N samples. Ten percent is added by the same rule.
Deviations: splits are drawn by the seed, not the authors' lists of ImageNet; a share is the nearest whole number of
samples per class, the same for all (1 % of ImageNet: 13), and has as many splits; the fit is by L-BFGS, where the
authors stop at a relative duality gap of 1e-3.
"""

from collections.abc import Iterator
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from pydantic import field_validator

from selfsup.errors import SpecError
from selfsup.evaluator import Evaluator, Features, Few, Metric, Score, check
from selfsup.feature_choice import FeatureKnobs
from selfsup.few import draw, shared
from selfsup.knob import knob

if TYPE_CHECKING:
    from torch import Tensor

    from selfsup.parts.softmax_regression import Inputs

SHOTS = {1: "shot1", 2: "shot2", 5: "shot5"}  # samples per class -> metric
SHARES = {0.01: "percent1", 0.1: "percent10"}  # share of train -> metric


class LowShot(Evaluator):
    """Top-1 of a linear map that learns from 1, 2 or 5 samples of each class, or from 1 or 10 % of train."""

    classifies = True
    metrics = MappingProxyType({name: Metric() for name in (*SHOTS.values(), *SHARES.values())})

    class Hyper(FeatureKnobs):
        per_class: tuple[int, ...] = knob((1, 2, 5), "samples of each class, of 1, 2 and 5: a metric each")
        shares: tuple[float, ...] = knob((0.01, 0.1), "shares of train, of 0.01 and 0.1: a metric each")
        splits: int = knob(3, "draws of samples, of which a metric is the mean", ge=1)
        decay: float = knob(0.0025, "weight of half of the squared norm, against the summed loss", symbol="λ", gt=0)
        iterations: int = knob(300, "of L-BFGS, at most", ge=1)

        @field_validator("per_class")
        @classmethod
        def _shots(cls, per_class: tuple[int, ...]) -> tuple[int, ...]:
            if not set(per_class) <= SHOTS.keys():
                raise ValueError("expected a list of 1, 2 and 5, or some of them")
            return per_class

        @field_validator("shares")
        @classmethod
        def _shares(cls, shares: tuple[float, ...]) -> tuple[float, ...]:
            if not set(shares) <= SHARES.keys():
                raise ValueError("expected a list of 0.01 and 0.1, or one of them, or none")
            return shares

    def __init__(self, hyper: Hyper) -> None:
        self.hyper = hyper

    @classmethod
    def lacks(cls, hyper: Hyper, labelled: int, classes: int) -> Few | None:
        train = f"train has {labelled} labelled samples of {classes} classes"
        if not hyper.per_class and not hyper.shares:
            return Few("", "nothing to learn from; give per_class or shares")
        for name, number in sizes(hyper, labelled, classes).items():
            place = "per_class" if name in SHOTS.values() else "shares"
            if number == 0:
                return Few(place, f"{name} is less than one sample of each class: {train}; leave it out")
            if (total := number * hyper.splits * classes) > labelled:
                few = f"{hyper.splits} splits of {name} take {total} samples, but {train}"
                return Few(place, f"{few}; leave it out, or set fewer splits")
        return None

    @classmethod
    def yields(cls, hyper: Hyper) -> dict[str, Metric]:
        return {name: cls.metrics[name] for name in sizes(hyper, 0, 1)}

    def run(self, features: Features, *, seed: int, device: str = "cpu") -> Iterator[tuple[str, Score]]:
        from selfsup.parts.softmax_regression import Inputs

        check(features)
        label, classes = features.train_label, features.classes
        if few := self.lacks(self.hyper, len(label), classes):
            raise SpecError(f"{few.knob}: {few.message}")
        val = Inputs(features.val, centered, device=device)
        for name, number in sizes(self.hyper, len(label), classes).items():
            guesses = [self.guesses(features, rows, val) for rows in draw(label, number, self.hyper.splits, seed)]
            yield name, 100 * float(np.mean([features.hits(guess) for guess in guesses]))

    def guesses(self, features: Features, rows: NDArray[np.int64], val: "Inputs") -> NDArray[np.int64]:
        """-> (M,): the classes of `val` by the fit to these training samples"""
        import torch

        from selfsup.parts import softmax_regression

        train = softmax_regression.Inputs(features.train, centered, torch.as_tensor(rows), val.device)
        label = torch.as_tensor(features.train_label[rows], device=val.device)
        start, decay = (
            np.zeros((train.width, features.classes)),
            np.full((train.width, 1), self.hyper.decay / len(train)),
        )
        weight = softmax_regression.fit(train, label, start, decay, iterations=self.hyper.iterations)
        return softmax_regression.guesses(weight, val, features.handicap)


def sizes(hyper: LowShot.Hyper, labelled: int, classes: int) -> dict[str, int]:
    """Return the number of samples that each class gives to a split, by metric."""
    shots = {SHOTS[number]: number for number in hyper.per_class}
    return shots | {SHARES[share]: shared(share, labelled, classes) for share in hyper.shares}


def centered(value: "Tensor") -> "Tensor":
    """(N, D) float32 -> (N, D) float64: each feature less the mean of its channels, then of unit length"""
    import torch

    value = value.double()
    return torch.nn.functional.normalize(value - value.mean(1, keepdim=True))

"""Logistic regression on frozen features: multinomial, L2-regularized, its strength chosen on a part of train.

The protocol of Alec Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", ICML 2021,
arXiv 2103.00020, appendix A.3 (L-BFGS, at most 1000 iterations), with the features of unit length, the 45 strengths and
the float64 of Maxime Oquab et al., "DINOv2", TMLR 2024, arXiv 2304.07193. Deviations: the strength is chosen on a tenth
of train by the lowest cross-entropy, never on val; as in DINOv2 the model is then fitted to all of train.
"""

from collections.abc import Iterator
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from selfsup.errors import DataError
from selfsup.evaluator import Evaluator, Features, Few, Metric, Score, all_positive, check, nothing_held_out
from selfsup.feature_choice import FeatureKnobs
from selfsup.knob import knob

if TYPE_CHECKING:
    from torch import Tensor

    from selfsup.parts.softmax_regression import Inputs


class Logistic(Evaluator):
    """Top-1 of a softmax over a linear map of unit features; the strength that was chosen is reported beside it."""

    classifies = True
    metrics = MappingProxyType({"top1": Metric(), "c": Metric(unit="", better=None, headline=False)})

    class Hyper(FeatureKnobs):
        cs: tuple[float, ...] = knob(
            tuple(float(f"{10**exponent:.3g}") for exponent in np.linspace(-6, 5, 45)),
            "weights of the summed loss to choose from, against half of the squared norm",
            symbol="C",
            min_length=1,
        )
        iterations: int = knob(1000, "of L-BFGS, at most", ge=1)

        _positive = all_positive("cs", "C")

    def __init__(self, hyper: Hyper) -> None:
        self.hyper = hyper

    @classmethod
    def lacks(cls, hyper: Hyper, labelled: int, classes: int) -> Few | None:  # noqa: ARG003
        return nothing_held_out("C", labelled)

    def run(self, features: Features, *, seed: int, device: str = "cpu") -> Iterator[tuple[str, Score]]:
        import torch

        from selfsup.parts.softmax_regression import Inputs, guesses

        check(features)
        if few := self.lacks(self.hyper, len(features.train), features.classes):
            raise DataError(few.message)
        train, val = (Inputs(part, unit, device=device) for part in (features.train, features.val))
        label = torch.as_tensor(features.train_label, device=device)
        c = self.choose(features.train, label, features.classes, seed)
        weight = self.fit(train, label, np.zeros((train.width, features.classes)), c)
        yield "top1", features.hits(guesses(weight, val, features.handicap))
        yield "c", c

    def choose(self, train: NDArray[np.float32], label: "Tensor", classes: int, seed: int) -> float:
        """Return the C whose fit to nine tenths of train has the lowest cross-entropy on the last tenth.

        Each fit starts from the one of the next smaller C.
        """
        import torch

        from selfsup.parts.linear_heads import held_out
        from selfsup.parts.softmax_regression import Inputs, slope

        draw = torch.Generator().manual_seed(seed)  # on the CPU, so that every device sees the same split
        parts = held_out(len(train), draw)
        left_out, rest = (Inputs(train, unit, rows.sort().values, label.device) for rows in parts)
        losses, weight = {}, np.zeros((rest.width, classes))
        for c in sorted(self.hyper.cs):
            weight = self.fit(rest, label[rest.rows.to(label.device)], weight, c)
            fitted = torch.as_tensor(weight, device=label.device)
            losses[c] = slope(fitted, left_out, label[left_out.rows.to(label.device)])[0]
        return min(losses, key=losses.__getitem__)

    def fit(self, train: "Inputs", label: "Tensor", start: NDArray[np.float64], c: float) -> NDArray[np.float64]:
        """(N, D + 1), (N,), (D + 1, K) -> (D + 1, K): minimize the mean loss + |W|² / 2 C N; the bias is free."""
        from selfsup.parts import softmax_regression

        return softmax_regression.fit_biased(train, label, start, c, iterations=self.hyper.iterations)


def unit(value: "Tensor") -> "Tensor":
    """(N, D) float32 -> (N, D + 1) float64: features of unit length, then a one for the bias"""
    import torch

    return torch.nn.functional.pad(torch.nn.functional.normalize(value.double()), (0, 1), value=1.0)

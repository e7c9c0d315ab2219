"""Segmentation by logistic regression on patches: a softmax over a linear map of each token is the class of its pixels.

The linear protocol of Timothée Darcet et al., "Cluster and Predict Latent Patches for Improved Masked Image Modeling"
(CAPI), TMLR 2025, arXiv 2502.08769, which has no augmentation, rate or schedule: the whole image, squashed to the
encoder's size; tokens standardised on train; the class of a patch is that of most of its pixels, and patches where that
is none are left out; L-BFGS of at most 1000 iterations, C of 10^linspace(-6, 5, 8), chosen by the mean IoU of pixels on
a tenth of the training images; then fitted to all of train.

Deviations: scipy's L-BFGS in float64, not cuML's in float32, whose guesses of a class that is none count as one.
"""

from collections.abc import Iterator
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from selfsup.errors import DataError
from selfsup.evaluator import Evaluator, Features, Few, Metric, Score, all_positive, check, check_map, nothing_held_out
from selfsup.knob import Knobs, knob

if TYPE_CHECKING:
    from torch import Tensor

    from selfsup.parts.dense import Patches
    from selfsup.parts.softmax_regression import Inputs

Weight = NDArray[np.float64]  # (D + 1, C)


class SegmentLinear(Evaluator):
    """Mean IoU of the pixels' classes by a linear map of their token; the C that was chosen is reported beside it."""

    reads, target = "tokens", "seg"
    metrics = MappingProxyType(
        {
            "miou": Metric(),
            "pixels": Metric(headline=False),
            "c": Metric(unit="", better=None, headline=False),
        }
    )

    class Hyper(Knobs):
        cs: tuple[float, ...] = knob(
            tuple(float(f"{10**exponent:.3g}") for exponent in np.linspace(-6, 5, 8)),
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

        from selfsup.parts.dense import Patches, accuracy, held_out_images, mean_iou
        from selfsup.parts.moments import moments

        check(features, labelled=False)
        train_map, val_map = check_map(features)
        if few := self.lacks(self.hyper, len(features.train), features.classes):
            raise DataError(few.message)
        train, val = Patches(features.train, train_map), Patches(features.val, val_map)
        tenth, rest = held_out_images(len(features.train), seed)
        scale, classes = moments(features.train, rest, device), features.classes
        best, c, weight = -1.0, 0.0, np.zeros((features.train.shape[2] + 1, classes))
        for strength in sorted(self.hyper.cs):  # each fit starts from the one of the next smaller C
            weight = self.fit(train, train.of(rest), scale, weight, strength)
            score = mean_iou(self.confusion(weight, train, train.of(tenth), scale))
            best, c = max((best, c), (score, strength), key=lambda pair: pair[0])
        weight = self.fit(train, torch.arange(len(train)), scale, np.zeros_like(weight), c)
        counts = self.confusion(weight, val, torch.arange(len(val)), scale)
        yield "miou", mean_iou(counts)
        yield "pixels", accuracy(counts)
        yield "c", c

    def fit(
        self, train: "Patches", rows: "Tensor", scale: tuple["Tensor", "Tensor"], start: Weight, c: float
    ) -> Weight:
        """Minimize the mean loss of patches + |W|² / 2 C P, of those that have a class; the bias is free."""
        from selfsup.parts import softmax_regression

        label = train.modes(rows, start.shape[1])
        inputs = _inputs(train, rows[label >= 0], scale)
        known = label[label >= 0].to(inputs.device)
        return softmax_regression.fit_biased(inputs, known, start, c, iterations=self.hyper.iterations)

    def confusion(
        self, weight: Weight, patches: "Patches", rows: "Tensor", scale: tuple["Tensor", "Tensor"]
    ) -> "Tensor":
        """-> (C, C + 1): pixels of these patches, by their class and that of their patch as it is guessed"""
        import torch

        from selfsup.parts.dense import confusion
        from selfsup.parts.softmax_regression import guesses

        classes = weight.shape[1]
        guess = torch.as_tensor(guesses(weight, _inputs(patches, rows, scale), np.zeros(1, np.float32)))[:, None]
        size = patches.at_once(classes)
        parts = zip(torch.split(rows, size), torch.split(guess, size), strict=True)
        return torch.stack([confusion(patches.pixels(part), own, classes) for part, own in parts]).sum(0)


def _inputs(patches: "Patches", rows: "Tensor", scale: tuple["Tensor", "Tensor"]) -> "Inputs":
    """Return standardised tokens with a one for the bias, (P, D + 1), in float64."""
    import torch

    from selfsup.parts.softmax_regression import Inputs

    mean, std = (moment.double() for moment in scale)

    def made(value: "Tensor") -> "Tensor":
        device = value.device
        return torch.nn.functional.pad((value.double() - mean.to(device)) / std.to(device), (0, 1), value=1.0)

    return Inputs(patches.tokens, made, rows, mean.device)

"""Robustness to common corruptions: a linear probe of clean features scored on corrupted validation images.

The benchmark of Dan Hendrycks and Thomas Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and
Perturbations", ICLR 2019, arXiv 1903.12261, ImageNet-C: fifteen kinds at five severities each, by the probe of
`linear`, as Oriane Siméoni et al., "DINOv3", arXiv 2508.10104, report frozen features on it. The error of a kind is its
mean over severities; the mean corruption error (mCE) of section 4.1 divides each by AlexNet's, as the code of AugMix,
arXiv 1912.02781, has them, and takes the mean over kinds. Deviations: images are corrupted as they are evaluated, at
the encoder's size after resizing and cutting, where the authors publish JPEGs of 224 pixels; those of
`parts/corruptions.py` and of `linear`.
"""

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Literal

import numpy as np
from pydantic import field_validator

from selfsup.evaluator import Evaluator, Features, Few, Metric, Score, check
from selfsup.feature_choice import FeatureChoice, FeatureKnobs
from selfsup.knob import knob
from selfsup.parts import linear_probe
from selfsup.parts.corruptions import KINDS, SEVERITIES
from selfsup.parts.linear_probe import ProbeKnobs

ALEXNET = MappingProxyType(  # top-1 errors, means over severities
    {
        "gaussian_noise": 0.886428,
        "shot_noise": 0.894468,
        "impulse_noise": 0.922640,
        "defocus_blur": 0.819880,
        "glass_blur": 0.826268,
        "motion_blur": 0.785948,
        "zoom_blur": 0.798360,
        "snow": 0.866816,
        "frost": 0.826572,
        "fog": 0.819324,
        "brightness": 0.564592,
        "contrast": 0.853204,
        "elastic_transform": 0.646056,
        "pixelate": 0.717840,
        "jpeg_compression": 0.606500,
    }
)


class Corruptions(Evaluator):
    """Mean corruption error of a linear probe over 15 kinds of corruption at 5 severities; the kinds' errors beside it.

    top1 is of the images as they are. Features of 75 versions of each validation sample are embedded and stored.
    """

    classifies = True
    metrics = MappingProxyType(
        {"mce": Metric(unit="", better="min"), "top1": Metric(headline=False)}
        | {kind: Metric(better="min", headline=False) for kind in KINDS}
    )

    class Hyper(FeatureKnobs, ProbeKnobs):
        baseline: Literal["alexnet", "none"] | dict[str, float] = knob(
            "alexnet",
            "mce is in percent of these errors, of 224 pixels and 1000 classes, or of your own, {snow: 61.3 ...} with "
            "all kinds; none: the mean error itself",
        )

        @field_validator("baseline")
        @classmethod
        def _whole(cls, baseline: str | dict[str, float]) -> str | dict[str, float]:
            if isinstance(baseline, dict) and (baseline.keys() != KINDS.keys() or not min(baseline.values()) > 0):
                raise ValueError(f"an error in percent, greater than 0, for each of {', '.join(KINDS)}, and no other")
            return baseline

        @property
        def choice(self) -> FeatureChoice:
            return super().choice._replace(views=len(KINDS) * SEVERITIES, versions="corrupted")

    def __init__(self, hyper: Hyper) -> None:
        self.hyper = hyper

    @classmethod
    def lacks(cls, hyper: Hyper, labelled: int, classes: int) -> Few | None:  # noqa: ARG003
        return linear_probe.lacks(labelled)

    def run(self, features: Features, *, seed: int, device: str = "cpu") -> Iterator[tuple[str, Score]]:
        check(features)
        assert features.views is not None, "the evaluation reads corrupted versions"
        clean = features._replace(views=None)
        probe = linear_probe.fit(clean, self.hyper, seed=seed, device=device)
        yield "top1", clean.hits(probe.guesses(clean.val, clean.handicap))
        wrong = [(~clean.hits(probe.guesses(part, clean.handicap))).mean() for part in features.views]
        errors = dict(zip(KINDS, np.reshape(wrong, (len(KINDS), SEVERITIES)).mean(1).tolist(), strict=True))
        yield from ((kind, 100 * error) for kind, error in errors.items())
        yield "mce", 100 * float(np.mean([errors[kind] / self.baseline[kind] for kind in KINDS]))

    @property
    def baseline(self) -> Mapping[str, float]:
        """Return the error of each kind that errors are divided by, as a share."""
        match self.hyper.baseline:
            case "alexnet":
                return ALEXNET
            case "none":
                return dict.fromkeys(KINDS, 1.0)
            case dict(percent):
                return {kind: error / 100 for kind, error in percent.items()}

"""Zero-shot classification: of the captions that name the classes, the most similar one to a sample says its class.

Radford et al., "Learning transferable visual models from natural language supervision", ICML 2021, arXiv 2103.00020,
section 3.1: a class is the mean of the unit vectors of its prompts, made a unit vector again. The classes are those of
the data that evaluations learn from, of which nothing else is read.
"""

from collections.abc import Iterator
from types import MappingProxyType

import numpy as np
from pydantic import field_validator

from selfsup.evaluator import Evaluator, Features, Metric, Score, check
from selfsup.feature_choice import FeatureChoice, Prompts
from selfsup.knob import Knobs, knob


class ZeroShot(Evaluator):
    """The class of a sample is the one whose prompts are most similar to it; no label is learned from.

    top5 is reported from 5 classes on.
    """

    reads, classifies = "prompted", True
    metrics = MappingProxyType({"top1": Metric(), "top5": Metric(headline=False)})

    class Hyper(Knobs):
        templates: tuple[str, ...] = knob(
            ("a photo of a {}.",), "captions of a class, each with {} in place of its name", min_length=1
        )
        names: dict[str, str] = knob({}, "class -> what prompts call it; others by their own names, without _")

        @field_validator("templates")
        @classmethod
        def _has_a_place(cls, templates: tuple[str, ...]) -> tuple[str, ...]:
            if unfit := [template for template in templates if "{}" not in template]:
                raise ValueError(f"expected {{}} in place of a class's name, in {unfit[0]!r}")
            return templates

    def __init__(self, hyper: Hyper) -> None:
        self.hyper = hyper

    @classmethod
    def reads_of(cls, hyper: Hyper) -> FeatureChoice:
        return FeatureChoice(cls.reads, prompts=Prompts(hyper.templates, tuple(sorted(hyper.names.items()))))

    def run(self, features: Features, *, seed: int, device: str = "cpu") -> Iterator[tuple[str, Score]]:  # noqa: ARG002
        check(features, learns=False)
        order = np.argsort(-(features.val + features.handicap), axis=1, kind="stable")
        yield "top1", features.hits(order[:, 0])
        if features.classes >= 5:
            yield "top5", features.hits(order[:, :5])

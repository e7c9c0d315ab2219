"""Linear classification of frozen features: one linear layer trained by SGD, a grid of learning rates at once.

The protocol of Kaiming He et al., "Masked Autoencoders Are Scalable Vision Learners", CVPR 2022, arXiv 2111.06377,
appendix A.1 (standardised features, momentum 0.9, no weight decay, cosine schedule), with SGD for LARS and a grid of
rates as in Maxime Oquab et al., "DINOv2", TMLR 2024, arXiv 2304.07193. Deviations: features are embedded once, without
augmentation or of `views` crops, and standardised over all samples, not over each batch; heads begin at zero, not at
random; the rate is chosen on a tenth of train on which no head is trained, never on val, and the chosen head is the one
reported: it is not trained again on that tenth. Chosen is the lowest cross-entropy, since the accuracy of a small
held-out set jumps by chance from rate to rate.
"""

from collections.abc import Iterator
from types import MappingProxyType

from selfsup.evaluator import Evaluator, Features, Few, Metric, Score, check
from selfsup.feature_choice import ViewKnobs
from selfsup.parts import linear_probe
from selfsup.parts.linear_probe import ProbeKnobs


class Linear(Evaluator):
    """Top-1 of the head with the lowest loss on held-out training samples; its learning rate is reported beside it."""

    classifies = True
    metrics = MappingProxyType({"top1": Metric(), "lr": Metric(unit="", better=None, headline=False)})

    class Hyper(ViewKnobs, ProbeKnobs):
        pass

    def __init__(self, hyper: Hyper) -> None:
        self.hyper = hyper

    @classmethod
    def lacks(cls, hyper: Hyper, labelled: int, classes: int) -> Few | None:  # noqa: ARG003
        return linear_probe.lacks(labelled)

    def run(self, features: Features, *, seed: int, device: str = "cpu") -> Iterator[tuple[str, Score]]:
        check(features)
        probe = linear_probe.fit(features, self.hyper, seed=seed, device=device)
        yield "top1", features.hits(probe.guesses(features.val, features.handicap))
        yield "lr", probe.lr

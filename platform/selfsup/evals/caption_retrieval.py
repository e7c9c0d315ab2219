"""Retrieval between samples and their captions, by cosine similarity in the space that both share.

`by: head` ranks them by what a head of one encoder of both says of each pair, as UNITER, Chen et al., ECCV 2020, arXiv
1909.11740, section 3.3: each sample passes the encoder with each caption, which of M `samples` are M times M passes.

Recall at 1, 5 and 10 in both directions, as Radford et al., "Learning transferable visual models from natural language
supervision", ICML 2021, arXiv 2103.00020, appendix E.1 (Flickr30k and COCO). Deviations: each sample has one caption,
its first. Of a tie the rank is random, and recall its expectation: equal captions share one place, and an encoder to
which all are the same scores k of M.
"""

from collections.abc import Iterator
from types import MappingProxyType
from typing import Literal

from selfsup.evaluator import Evaluator, Features, Metric, Score
from selfsup.feature_choice import FeatureChoice
from selfsup.knob import Knobs, knob
from selfsup.ranking import NUMBERS, between, by_scores


class CaptionRetrieval(Evaluator):
    """Whether a validation sample's own caption is among the k most similar of all, and a caption's own sample.

    text_recallk: of captions that samples ask for; sample_recallk: of samples that captions ask for.
    """

    reads, target = "pairs", None
    metrics = MappingProxyType(
        {f"{kind}_recall{k}": Metric(headline=k == 1) for kind in ("text", "sample") for k in NUMBERS}
    )

    class Hyper(Knobs):
        by: Literal["towers", "head"] = knob("towers", "cosines of two towers, or a head that one encoder of both has")
        samples: int | None = knob(None, "validation samples, drawn alike for all runs; null: all", ge=2)

    def __init__(self, hyper: Hyper) -> None:
        self.hyper = hyper

    @classmethod
    def reads_of(cls, hyper: Hyper) -> FeatureChoice:
        return FeatureChoice("matched" if hyper.by == "head" else cls.reads, images=hyper.samples)

    def run(self, features: Features, *, seed: int, device: str = "cpu") -> Iterator[tuple[str, Score]]:  # noqa: ARG002
        text, sample = (by_scores if self.hyper.by == "head" else between)(features, device)
        yield from ((f"text_recall{k}", share) for k, share in zip(NUMBERS, text, strict=True))
        yield from ((f"sample_recall{k}", share) for k, share in zip(NUMBERS, sample, strict=True))

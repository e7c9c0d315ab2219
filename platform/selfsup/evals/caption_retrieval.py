"""Retrieval between samples and their captions, by cosine similarity in the space that both share.

Recall at 1, 5 and 10 in both directions, as Radford et al., "Learning transferable visual models from natural language
supervision", ICML 2021, arXiv 2103.00020, appendix E.1 (Flickr30k and COCO). Deviations: each sample has one caption,
its first. Of a tie the rank is random, and recall its expectation: equal captions share one place, and an encoder to
which all are the same scores k of M.
"""

from collections.abc import Iterator
from types import MappingProxyType

from selfsup.evaluator import Evaluator, Features, Metric, Score
from selfsup.knob import Knobs
from selfsup.ranking import NUMBERS, between


class CaptionRetrieval(Evaluator):
    """Whether a validation sample's own caption is among the k most similar of all, and a caption's own sample.

    text_recallk: of captions that samples ask for; sample_recallk: of samples that captions ask for.
    """

    reads, target = "pairs", None
    metrics = MappingProxyType(
        {f"{kind}_recall{k}": Metric(headline=k == 1) for kind in ("text", "sample") for k in NUMBERS}
    )

    class Hyper(Knobs):
        pass

    def __init__(self, hyper: Hyper) -> None:
        self.hyper = hyper

    def run(self, features: Features, *, seed: int, device: str = "cpu") -> Iterator[tuple[str, Score]]:  # noqa: ARG002
        text, sample = between(features, device)
        yield from ((f"text_recall{k}", share) for k, share in zip(NUMBERS, text, strict=True))
        yield from ((f"sample_recall{k}", share) for k, share in zip(NUMBERS, sample, strict=True))

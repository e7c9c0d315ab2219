"""Retrieval between samples and their captions, by cosine similarity in the space that both share.

Recall at 1, 5 and 10 in both directions, as Radford et al., "Learning transferable visual models from natural language
supervision", ICML 2021, arXiv 2103.00020, appendix E.1 (Flickr30k and COCO). Deviations: each sample has one caption,
its first. Of a tie the rank is random, and recall its expectation: equal captions share one place, and an encoder to
which all are the same scores k of M.
"""

from collections.abc import Iterator
from types import MappingProxyType
from typing import TYPE_CHECKING

from selfsup.errors import DataError
from selfsup.evaluator import Evaluator, Features, Metric, Score, check
from selfsup.knob import Knobs

if TYPE_CHECKING:
    from torch import Tensor

SIMILARITIES = 2**24  # how many cosines are held at once
NUMBERS = 1, 5, 10
TIE = 1e-6  # difference of cosines that is rounding


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
        import torch

        check(features, labelled=False, learns=False)
        if len(features.val) < 2:
            raise DataError("evaluation: retrieval among one sample says nothing")
        sample, text = torch.nn.functional.normalize(torch.as_tensor(features.val, device=device), dim=2).unbind(1)
        for kind, queries, among in (("text", sample, text), ("sample", text, sample)):
            for k, share in zip(NUMBERS, recalls(queries, among), strict=True):
                yield f"{kind}_recall{k}", 100 * share


def recalls(queries: "Tensor", among: "Tensor") -> list[float]:
    """(M, D), (M, D) -> the expected share of queries whose own row is among the k most similar, for each of NUMBERS"""
    import torch

    rows, hits = max(1, SIMILARITIES // len(among)), queries.new_zeros(len(NUMBERS), dtype=torch.float64)
    for part, own in zip(torch.split(queries, rows), torch.split(among, rows), strict=True):
        lead = part @ among.T - (part * own).sum(1, keepdim=True)
        better = (lead > TIE).sum(1).double()
        tied = (lead.abs() <= TIE).sum(1).double()
        hits += torch.stack([((k - better) / tied).clamp(0, 1).sum() for k in NUMBERS])
    shares: list[float] = (hits / len(queries)).tolist()
    return shares

"""Weighted k-nearest-neighbor classification of frozen features.

Zhirong Wu, Yuanjun Xiong, Stella Yu, Dahua Lin, "Unsupervised Feature Learning via Non-Parametric Instance
Discrimination", CVPR 2018, arXiv 1805.01978; with the settings of DINO, arXiv 2104.14294.
"""

from collections.abc import Iterator
from types import MappingProxyType
from typing import TYPE_CHECKING

from selfsup.errors import SpecError
from selfsup.evaluator import Evaluator, Features, Few, Hits, Metric, Score, check
from selfsup.feature_choice import FeatureKnobs
from selfsup.knob import Choice, Range, knob

if TYPE_CHECKING:
    from torch import Tensor

SIMILARITIES = 2**26  # how many cosines are held at once: 256 MB


class KNN(Evaluator):
    """Each of the k most similar training samples votes for its class with weight exp(cosine / temperature).

    top5 is reported from 5 classes on.
    """

    metrics = MappingProxyType({"top1": Metric(), "top5": Metric(headline=False)})

    class Hyper(FeatureKnobs):
        k: int = knob(20, "neighbors that vote", symbol="k", sweep=Choice(5, 10, 20, 50, 100, 200), ge=1)
        temperature: float = knob(
            0.07, "how fast a vote fades with distance", symbol="τ", sweep=Range(0.01, 1.0, log=True), gt=0
        )

    def __init__(self, hyper: Hyper) -> None:
        self.hyper = hyper

    @classmethod
    def lacks(cls, hyper: Hyper, labelled: int, classes: int) -> Few | None:  # noqa: ARG003
        few = f"{hyper.k} neighbors, but train has {labelled} labelled samples; set a smaller k"
        return Few("k", few) if hyper.k > labelled else None

    def run(self, features: Features, *, seed: int, device: str = "cpu") -> Iterator[tuple[str, Score]]:  # noqa: ARG002
        import torch

        check(features)
        if few := self.lacks(self.hyper, len(features.train), features.classes):
            raise SpecError(f"{few.knob}: {few.message}")
        bank, query = (torch.as_tensor(part, device=device) for part in (features.train, features.val))
        bank_label, label = (
            torch.as_tensor(part, device=device) for part in (features.train_label, features.val_label)
        )
        bank, query = torch.nn.functional.normalize(bank), torch.nn.functional.normalize(query)
        rows = max(1, SIMILARITIES // len(bank))
        votes = torch.cat([self.votes(part, bank, bank_label, features.classes) for part in torch.split(query, rows)])
        yield "top1", _hits(votes, label, 1)
        if features.classes >= 5:
            yield "top5", _hits(votes, label, 5)

    def votes(self, query: "Tensor", bank: "Tensor", bank_label: "Tensor", classes: int) -> "Tensor":
        """(M, D), (N, D), (N,) -> (M, C): unit features in, each class's share of the votes out."""
        cosine, neighbor = (query @ bank.T).topk(self.hyper.k)
        weight = (cosine / self.hyper.temperature).softmax(1)  # one factor for all votes of a row: the ranking stays
        return weight.new_zeros(len(query), classes).scatter_add_(1, bank_label[neighbor], weight)


def _hits(votes: "Tensor", label: "Tensor", k: int) -> Hits:
    """(M, C), (M,) -> (M,). Unlike DINO's code, a class without any vote is no guess, whatever its number."""
    share, guess = votes.topk(k)
    hits: Hits = ((guess == label[:, None]) & (share > 0)).any(1).cpu().numpy()
    return hits

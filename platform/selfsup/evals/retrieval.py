"""Retrieval by frozen features: each validation sample ranks all training samples by cosine similarity.

As the retrieval of Mathilde Caron et al., "Emerging Properties in Self-Supervised Vision Transformers", ICCV 2021,
arXiv 2104.14294, section 4.2 (unit features of a frozen encoder, mean average precision). Recall at 1 is of Hyun Oh
Song et al., "Deep Metric Learning via Lifted Structured Feature Embedding", CVPR 2016, arXiv 1511.06452. Deviations:
relevant are the training samples of the query's class, where DINO has the landmarks of Oxford and Paris at several
scales. Samples of equal similarity share a rank, as in scikit-learn's average precision; a query whose class has no
training sample counts 0.
"""

from collections.abc import Iterator
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from selfsup.bounded import at_once
from selfsup.evaluator import Evaluator, Features, Metric, Score, check
from selfsup.feature_choice import FeatureKnobs

if TYPE_CHECKING:
    from torch import Tensor

SIMILARITIES = 2**23  # that are usually ranked at once: 32 MiB, and about six times that in ranks


class Retrieval(Evaluator):
    """Mean average precision of training samples of the query's class, and whether the most similar one is of it.

    map is the mean over queries, class_map the mean over classes of their queries' mean.
    """

    metrics = MappingProxyType({"map": Metric(), "class_map": Metric(headline=False), "recall1": Metric()})

    class Hyper(FeatureKnobs):
        pass

    def __init__(self, hyper: Hyper) -> None:
        self.hyper = hyper

    def run(self, features: Features, *, seed: int, device: str = "cpu") -> Iterator[tuple[str, Score]]:  # noqa: ARG002
        import torch

        from selfsup.parts.cosines import Directions

        check(features)
        bank = Directions(torch.as_tensor(features.train, device=device))
        query = torch.as_tensor(features.val, device=device)
        bank_label, label = (
            torch.as_tensor(part, device=device) for part in (features.train_label, features.val_label)
        )
        rows = at_once(SIMILARITIES, len(bank))
        parts = [
            ranked(bank.cosines(part), bank_label == own[:, None])
            for part, own in zip(torch.split(query, rows), torch.split(label, rows), strict=True)
        ]
        precision, first = (torch.cat(values).cpu().numpy() for values in zip(*parts, strict=True))
        queries = np.bincount(features.val_label)
        by_class = np.bincount(features.val_label, weights=precision)[queries > 0] / queries[queries > 0]
        yield "map", 100 * float(precision.mean())
        yield "class_map", 100 * float(by_class.mean())
        yield "recall1", first


def ranked(similarity: "Tensor", relevant: "Tensor") -> tuple["Tensor", "Tensor"]:
    """(M, N), (M, N) bool -> (M,) float64, (M,) bool: average precision, and whether the most similar one is relevant.

    Average precision is the mean over relevant samples of the precision among all that are at least as similar.
    """
    import torch

    number = relevant.sum(1, keepdim=True)
    own = similarity.masked_fill(~relevant, torch.inf).topk(int(number.max()), dim=1, largest=False).values  # ascending
    below = torch.searchsorted(own, similarity, right=True)  # how many relevant ones are at most as similar as each
    counts = torch.zeros(len(own), own.shape[1] + 1, dtype=torch.int64, device=own.device)
    counts.scatter_add_(1, below, torch.ones_like(below))
    as_similar = similarity.shape[1] - counts.cumsum(1)[:, :-1]  # as each relevant one, at least
    hits = number - torch.searchsorted(own, own)
    precision = (hits.double() / as_similar.clamp_min(1)).where(own.isfinite(), 0.0)
    best = similarity.argmax(1, keepdim=True)
    return precision.sum(1) / number[:, 0].clamp_min(1), relevant.gather(1, best)[:, 0]

"""Ranks of partners by cosine similarity, or by scores of pairs: recall among the most similar."""

from typing import TYPE_CHECKING

from selfsup.bounded import at_once
from selfsup.errors import DataError
from selfsup.evaluator import Features, check

if TYPE_CHECKING:
    from torch import Tensor

SIMILARITIES = 2**24  # that are usually held at once: 64 MiB
NUMBERS = 1, 5, 10
TIE = 1e-6  # difference of cosines, or scores, that is rounding


def between(features: Features, device: str) -> tuple[list[float], list[float]]:
    """Return recall at each of NUMBERS, in percent: of the second of pairs that the first ask for, and the reverse.

    Raises DataError for a single pair.
    """
    import torch

    check(features, labelled=False, learns=False)
    if len(features.val) < 2:
        raise DataError("evaluation: retrieval among one sample says nothing")
    first, second = torch.nn.functional.normalize(torch.as_tensor(features.val, device=device), dim=2).unbind(1)
    there, back = ([100 * share for share in recalls(*pair)] for pair in ((first, second), (second, first)))
    return there, back


def by_scores(features: Features, device: str) -> tuple[list[float], list[float]]:
    """Return the same of samples and captions by scores of every pair. features: as an evaluator reads `matched`."""
    import torch

    check(features, labelled=False, learns=False)
    if len(features.val) < 2:
        raise DataError("evaluation: retrieval among one sample says nothing")
    place, scores = torch.as_tensor(features.val, device=device).tensor_split([1], dim=1)
    own = place[:, 0].long()
    asked = scores.gather(1, own[:, None])
    leads = scores - asked, scores[:, own].T - asked
    there, back = ([100 * share for share in (_hits(lead) / len(lead)).tolist()] for lead in leads)
    return there, back


def recalls(queries: "Tensor", among: "Tensor") -> list[float]:
    """(M, D), (M, D) -> the expected share of queries whose own row is among the k most similar, for each of NUMBERS"""
    import torch

    rows, hits = at_once(SIMILARITIES, len(among)), queries.new_zeros(len(NUMBERS), dtype=torch.float64)
    for part, own in zip(torch.split(queries, rows), torch.split(among, rows), strict=True):
        hits += _hits(part @ among.T - (part * own).sum(1, keepdim=True))
    shares: list[float] = (hits / len(queries)).tolist()
    return shares


def _hits(lead: "Tensor") -> "Tensor":
    """(M, N) -> (3,): how many of M are expected among the first k. lead: of each of N over the own one, which is 0."""
    import torch

    better, tied = (lead > TIE).sum(1).double(), (lead.abs() <= TIE).sum(1).double()
    return torch.stack([((k - better) / tied).clamp(0, 1).sum() for k in NUMBERS])

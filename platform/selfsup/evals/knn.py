"""Weighted k-nearest-neighbor classification of frozen features.

Zhirong Wu, Yuanjun Xiong, Stella Yu, Dahua Lin, "Unsupervised Feature Learning via Non-Parametric Instance
Discrimination", CVPR 2018, arXiv 1805.01978; with the settings of DINO, arXiv 2104.14294. DINO and DINOv2, arXiv
2304.07193, try 10, 20, 100 and 200 neighbors, which is `ks` here. Deviation: where there are several settings, the one
is taken that is right most often on a tenth of train by the votes of the rest, never on val; then all of train votes.
"""

import math
from collections.abc import Iterator, Mapping
from itertools import product
from types import MappingProxyType
from typing import TYPE_CHECKING

from selfsup.bounded import at_once
from selfsup.errors import SpecError
from selfsup.evaluator import Evaluator, Features, Few, Metric, Score, all_positive, check, nothing_held_out
from selfsup.feature_choice import FeatureKnobs
from selfsup.knob import Choice, Range, knob

if TYPE_CHECKING:
    from torch import Tensor

    from selfsup.parts.cosines import Directions

SIMILARITIES = 2**26  # that are usually held at once: 256 MiB


class KNN(Evaluator):
    """Each of the k most similar training samples votes for its class with weight exp(cosine / temperature).

    top5 is reported from 5 classes on; k and temperature where they were chosen among several.
    """

    classifies = True
    metrics = MappingProxyType(
        {
            "top1": Metric(),
            "top5": Metric(headline=False),
            "k": Metric(unit="", better=None, headline=False),
            "temperature": Metric(unit="", better=None, headline=False),
        }
    )

    class Hyper(FeatureKnobs):
        k: int = knob(20, "neighbors that vote", symbol="k", sweep=Choice(5, 10, 20, 50, 100, 200), ge=1)
        temperature: float = knob(
            0.07, "how fast a vote fades with distance", symbol="τ", sweep=Range(0.01, 1.0, log=True), gt=0
        )
        ks: tuple[int, ...] = knob((), "numbers of neighbors to choose from, in place of k")
        temperatures: tuple[float, ...] = knob((), "temperatures to choose from, in place of temperature")

        _ks = all_positive("ks", "k")
        _temperatures = all_positive("temperatures", "temperature")

    def __init__(self, hyper: Hyper) -> None:
        self.hyper = hyper

    @classmethod
    def lacks(cls, hyper: Hyper, labelled: int, classes: int) -> Few | None:  # noqa: ARG003
        if len(choices := grid(hyper)) > 1 and labelled < 2:
            return nothing_held_out("k", labelled)
        voters = labelled - math.ceil(labelled / 10) if len(choices) > 1 else labelled
        most, place = choices[-1][0], "ks" if hyper.ks else "k"
        share = "nine tenths of train have" if len(choices) > 1 else "train has"
        few = f"{most} neighbors, but {share} {voters} labelled samples; set a smaller k"
        return Few(place, few) if most > voters else None

    @classmethod
    def yields(cls, hyper: Hyper) -> Mapping[str, Metric]:
        given = () if len(grid(hyper)) > 1 else ("k", "temperature")
        return {name: metric for name, metric in cls.metrics.items() if name not in given}

    def run(self, features: Features, *, seed: int, device: str = "cpu") -> Iterator[tuple[str, Score]]:
        import torch

        from selfsup.parts.cosines import Directions

        check(features)
        if few := self.lacks(self.hyper, len(features.train), features.classes):
            raise SpecError(f"{few.knob}: {few.message}")
        bank = Directions(torch.as_tensor(features.train, device=device))
        query = torch.as_tensor(features.val, device=device)
        bank_label = torch.as_tensor(features.train_label, device=device)
        k, temperature = self.choose(bank, bank_label, features.classes, seed)
        handicap, named = torch.as_tensor(features.handicap, device=device), [1, 5] if features.classes >= 5 else [1]
        best: dict[int, list[Tensor]] = {number: [] for number in named}
        for part in torch.split(query, at_once(SIMILARITIES, max(len(bank), features.classes))):
            cosine, neighbor = nearest(part, bank, k)
            tally = votes(cosine, bank_label[neighbor], temperature, features.classes) + handicap
            for number in named:
                best[number].append(guesses(tally, number))
        for number in named:
            yield f"top{number}", features.hits(torch.cat(best[number]).cpu().numpy())
        if len(grid(self.hyper)) > 1:
            yield from (("k", float(k)), ("temperature", temperature))

    def choose(self, bank: "Directions", label: "Tensor", classes: int, seed: int) -> tuple[int, float]:
        """Return k and temperature that are right most often on a tenth of train, the smallest of equal ones."""
        import torch

        if len(choices := grid(self.hyper)) == 1:
            return choices[0]
        draw = torch.Generator().manual_seed(seed)  # on the CPU, so that every device sees the same split
        left_out = torch.randperm(len(bank), generator=draw)[: math.ceil(len(bank) / 10)].to(label.device)
        right = [0] * len(choices)
        for rows in torch.split(left_out, at_once(SIMILARITIES, len(bank))):
            cosine, neighbor = nearest(bank.value[rows], bank, choices[-1][0], left_out)
            for number, (k, temperature) in enumerate(choices):
                tally = votes(cosine[:, :k], label[neighbor[:, :k]], temperature, classes)
                right[number] += int((guesses(tally, 1)[:, 0] == label[rows]).sum())
        return choices[right.index(max(right))]


def grid(hyper: KNN.Hyper) -> list[tuple[int, float]]:
    """Return the settings to choose from, those of the fewest neighbors first."""
    return list(product(sorted(hyper.ks or [hyper.k]), sorted(hyper.temperatures or [hyper.temperature])))


def nearest(query: "Tensor", bank: "Directions", k: int, absent: "Tensor | None" = None) -> tuple["Tensor", "Tensor"]:
    """(M, D), (N, D) -> (M, k) cosines and rows of the bank, the most similar first. absent: rows that are left out."""
    cosine = bank.cosines(query)
    if absent is not None:
        cosine[:, absent] = -2.0  # less than any cosine
    value, row = cosine.topk(k)
    return value, row


def votes(cosine: "Tensor", label: "Tensor", temperature: float, classes: int) -> "Tensor":
    """(M, k), (M, k) -> (M, C): each class's share of the votes"""
    weight = (cosine / temperature).softmax(1)  # one factor for all votes of a row: the ranking stays
    return weight.new_zeros(len(cosine), classes).scatter_add_(1, label, weight)


def guesses(tally: "Tensor", k: int) -> "Tensor":
    """(M, C) -> (M, k): the classes of most votes. Unlike DINO's code, one without any is no guess, -1."""
    share, guess = tally.topk(k)
    return guess.where(share > 0, -1)

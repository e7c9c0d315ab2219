"""Segmentation by the nearest patches: the pixels of a patch are those of the patches of train that are most like it.

The kNN protocol of Timothée Darcet et al., "Cluster and Predict Latent Patches for Improved Masked Image Modeling"
(CAPI), TMLR 2025, arXiv 2502.08769: the whole image, squashed to the encoder's size; tokens standardised on train; each
of the k nearest patches votes pixel by pixel; k of 1, 3, 10, 30 and cosine or Euclidean distance are chosen by the mean
IoU on a tenth of the training images; then all of train votes. Patches with no class in most pixels do not vote.

Deviations: a pixel that most votes say has no class is wrong, and no class of its own among those averaged.
"""

from collections.abc import Iterator
from itertools import product
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

from selfsup.bounded import USUAL, bounded
from selfsup.errors import DataError
from selfsup.evaluator import Evaluator, Features, Few, Metric, Score, all_positive, check, check_map, nothing_held_out
from selfsup.knob import Knobs, knob

if TYPE_CHECKING:
    from torch import Tensor

    from selfsup.parts.dense import Patches

EPSILON = 1e-12  # a shorter token has no direction
SIMILARITIES = 2**24  # that are held at once: 64 MiB
Distance = Literal["cosine", "euclidean"]


class SegmentKNN(Evaluator):
    """Mean IoU of the pixels' classes by the votes of the nearest patches of train."""

    reads, target = "tokens", "seg"
    metrics = MappingProxyType(
        {
            "miou": Metric(),
            "pixels": Metric(headline=False),
            "k": Metric(unit="", better=None, headline=False),
            "cosine": Metric(unit="", better=None, headline=False),
        }
    )

    class Hyper(Knobs):
        ks: tuple[int, ...] = knob((1, 3, 10, 30), "numbers of neighbors to choose from", symbol="k", min_length=1)
        distances: tuple[Distance, ...] = knob(("cosine", "euclidean"), "distances to choose from", min_length=1)
        patches: int | None = knob(None, "training patches that vote at most, drawn by the seed; null: all", ge=1)

        _ks = all_positive("ks", "k")

    def __init__(self, hyper: Hyper) -> None:
        self.hyper = hyper

    @classmethod
    def lacks(cls, hyper: Hyper, labelled: int, classes: int) -> Few | None:  # noqa: ARG003
        return nothing_held_out("k", labelled)

    def run(self, features: Features, *, seed: int, device: str = "cpu") -> Iterator[tuple[str, Score]]:
        import torch

        from selfsup.parts.dense import Patches, accuracy, held_out_images, mean_iou
        from selfsup.parts.moments import moments

        check(features, labelled=False)
        train_map, val_map = check_map(features)
        if few := self.lacks(self.hyper, len(features.train), features.classes):
            raise DataError(few.message)
        train, val = Patches(features.train, train_map), Patches(features.val, val_map)
        tenth, rest = held_out_images(len(features.train), seed)
        scale = moments(features.train, rest, device)
        tried = list(product(sorted(self.hyper.ks), self.hyper.distances))
        bank = PatchBank(train, self.drawn(train, train.of(rest), features.classes, seed), scale)
        scores = [mean_iou(counts) for counts in bank.confusions(train, train.of(tenth), tried, features.classes)]
        k, distance = tried[scores.index(max(scores))]
        bank = PatchBank(train, self.drawn(train, torch.arange(len(train)), features.classes, seed), scale)
        [counts] = bank.confusions(val, torch.arange(len(val)), [(k, distance)], features.classes)
        yield "miou", mean_iou(counts)
        yield "pixels", accuracy(counts)
        yield from (("k", float(k)), ("cosine", float(distance == "cosine")))

    def drawn(self, train: "Patches", rows: "Tensor", classes: int, seed: int) -> "Tensor":
        """Return those of these patches that vote."""
        import torch

        known = rows[train.modes(rows, classes) >= 0]
        draw = torch.Generator().manual_seed(seed)
        return known[torch.randperm(len(known), generator=draw)[: self.hyper.patches].sort().values]


class PatchBank:
    """The patches of train that vote. rows: their numbers. scale: mean and deviation of each channel, (D,) each."""

    def __init__(self, train: "Patches", rows: "Tensor", scale: tuple["Tensor", "Tensor"]) -> None:
        self.train, self.rows, self.scale = train, rows, scale

    @bounded(USUAL)  # whatever a spec says: which of equal patches vote depends on the parts
    def confusions(
        self, patches: "Patches", rows: "Tensor", tried: list[tuple[int, Distance]], classes: int
    ) -> list["Tensor"]:
        """Return how classes are guessed of these patches' pixels by each setting: (C, C + 1)."""
        import torch

        from selfsup.parts.dense import confusion

        most = max(k for k, _ in tried)
        totals = [torch.zeros(classes, classes + 1, dtype=torch.int64) for _ in tried]
        size = max(1, min(4096, patches.at_once(classes) // most))
        for part in torch.split(rows, size):
            true, query = patches.pixels(part), self.read(patches, part)
            near = self.nearest(query, min(most, len(self.rows)))
            for total, (k, distance) in zip(totals, tried, strict=True):
                total += confusion(true, self.votes(near[distance][:, :k], classes), classes)
        return totals

    def votes(self, near: "Tensor", classes: int) -> "Tensor":
        """(M, k), numbers of patches -> (M, L): the class of most at each place, the smallest of equal ones, or -1"""
        import torch

        pixels = self.train.pixels(near.flatten()).reshape(*near.shape, -1)
        most = torch.where(pixels < 0, classes, pixels).mode(1).values
        return torch.where(most == classes, -1, most)

    def nearest(self, query: "Tensor", k: int) -> dict[Distance, "Tensor"]:
        """(M, D) -> by distance (M, k): the numbers of the nearest patches, the nearest first"""
        import torch

        best: dict[Distance, list[Tensor]] = {"cosine": [], "euclidean": []}
        for part in torch.split(self.rows, max(k, SIMILARITIES // len(query))):
            key = self.read(self.train, part)
            product, square = query @ key.T, key.square().sum(1)
            alike = {"cosine": product / square.sqrt().clamp_min(EPSILON), "euclidean": 2 * product - square}
            for distance in best:
                likeness, place = alike[distance].topk(min(k, len(part)))
                own = [likeness, part.to(place.device)[place]]
                best[distance] = _merged(best[distance], own, k) if best[distance] else own
        return {distance: rows.cpu() for distance, (_, rows) in best.items()}

    def read(self, patches: "Patches", rows: "Tensor") -> "Tensor":
        """(p,) -> (p, D): standardised tokens"""
        import torch

        mean, std = self.scale
        return (torch.as_tensor(patches.tokens[rows.numpy()], device=mean.device) - mean) / std


def _merged(one: list["Tensor"], other: list["Tensor"], k: int) -> list["Tensor"]:
    """Return the k most alike of two lists of likenesses and rows, (M, k) each."""
    import torch

    likeness, rows = (torch.cat(pair, 1) for pair in zip(one, other, strict=True))
    value, place = likeness.topk(min(k, likeness.shape[1]))
    return [value, rows.gather(1, place)]

"""Correspondence: which places of a view frozen tokens find in a second one of the same scene, without any training.

As Mohamed El Banani et al., "Probing the 3D Awareness of Visual Foundation Models" (Probe3D), CVPR 2024, arXiv
2404.08636, and their code have it for pairs of ScanNet: places every 4 pixels, whose features are interpolated between
tokens; the place of the second view of the largest cosine; of these matches the 1000 of the least ratio of the
distance to the nearest to that to the second (D. Lowe, IJCV 2004). A match is right if it is less than 5, 10 or 20
pixels from where the point is seen, of an image of 160 pixels across: of each image the share, then the mean over them.

Deviations: views are of two cameras side by side, one's axes being the other's, so that a map of disparity says where
a point is seen, and matches are not told apart by the angle between views; what the second camera does not see is left
out; the whole image is squashed to the encoder's size. `still10` is the recall of matches that do not move at all.
"""

from collections.abc import Iterator
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from selfsup.bounded import at_once
from selfsup.errors import DataError
from selfsup.evaluator import Evaluator, Features, Map, Metric, Score, check, maps_of
from selfsup.feature_choice import FeatureChoice
from selfsup.knob import Knobs, knob

if TYPE_CHECKING:
    from torch import Tensor

ACROSS = 160  # pixels of an image that errors are told in
WITHIN = (5, 10, 20)  # of these pixels
EPSILON = 1e-9  # a shorter distance counts as this
SIMILARITIES = 2**24  # that are usually held at once: 64 MiB


class Correspondence(Evaluator):
    """Share of the surest matches of two views that are right, by the cosine of tokens."""

    reads, target = "tokens", "disparity"
    metrics = MappingProxyType(
        {f"recall{pixels}": Metric(headline=pixels == 10) for pixels in WITHIN}
        | {"still10": Metric(better=None, headline=False)}
    )

    class Hyper(Knobs):
        matches: int = knob(1000, "matches of an image that count at most, the surest", ge=1)
        stride: int = knob(4, "pixels between places that are matched", ge=1)

    def __init__(self, hyper: Hyper) -> None:
        self.hyper = hyper

    @classmethod
    def reads_of(cls, hyper: Hyper) -> FeatureChoice:  # noqa: ARG003
        return FeatureChoice("tokens", squashed=True, views=1, versions="right")

    def run(self, features: Features, *, seed: int, device: str = "cpu") -> Iterator[tuple[str, Score]]:  # noqa: ARG002
        import torch

        check(features, labelled=False, learns=False)
        _, maps = maps_of(features)
        assert features.views is not None, "no second views"
        pairs = zip(features.val, features.views[0], maps, strict=True)
        errors = [
            self.errors(torch.tensor(left, device=device), torch.tensor(right, device=device), map_)
            for left, right, map_ in pairs
        ]
        seen = [(moved.cpu(), still) for moved, still in errors if len(still)]
        if not seen:
            raise DataError("evaluation: no validation image shows a point that its second view shows, too")
        for pixels in WITHIN:
            yield f"recall{pixels}", 100 * float(np.mean([(moved < pixels).float().mean() for moved, _ in seen]))
        yield "still10", 100 * float(np.mean([(still < 10).float().mean() for _, still in seen]))

    def errors(self, left: "Tensor", right: "Tensor", disparity: Map) -> tuple["Tensor", "Tensor"]:
        """(T, D), (T, D), (S, S) -> (m,), (k,): pixels that matches are wrong by, and that places themselves are."""
        import torch

        size = len(disparity)
        side = max(2, round(size / self.hyper.stride))
        middle = (torch.arange(side) + 0.5) * size / side
        row, column = (axis.flatten() for axis in torch.meshgrid(middle, middle, indexing="ij"))
        shift = torch.as_tensor(disparity)[row.long(), column.long()]
        known = (shift > 0) & (column > shift)
        place, ratio = nearest(interpolated(left, side)[known.to(left.device)], interpolated(right, side))
        surest = ratio.argsort(stable=True)[: self.hyper.matches]
        true_row, true_column = row[known][surest], (column - shift)[known][surest]
        wrong = torch.hypot(row[place[surest]] - true_row, column[place[surest]] - true_column)
        return wrong * ACROSS / size, shift[known] * ACROSS / size


def interpolated(tokens: "Tensor", side: int) -> "Tensor":
    """(T, D) -> (P, D): unit features of side x side places, row by row"""
    import torch.nn.functional as F

    grid = round(len(tokens) ** 0.5)
    maps = tokens.T.reshape(1, -1, grid, grid)
    return F.normalize(F.interpolate(maps, (side, side), mode="bilinear").flatten(2)[0].T, dim=1)


def nearest(query: "Tensor", key: "Tensor") -> tuple["Tensor", "Tensor"]:
    """(k, D), (P, D), of unit length -> (k,), (k,): place of the nearest, and ratio of its distance to the second's"""
    import torch

    parts = torch.split(query, at_once(SIMILARITIES, len(key)))
    pairs = [(1 - part @ key.T).topk(2, largest=False) for part in parts]
    distance = torch.cat([pair.values for pair in pairs]).clamp_min(EPSILON)
    return torch.cat([pair.indices for pair in pairs])[:, 0].cpu(), (distance[:, 0] / distance[:, 1]).cpu()

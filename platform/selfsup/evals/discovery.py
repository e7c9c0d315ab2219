"""Discovery of objects without labels: boxes around what stands out among an image's patches, by three algorithms.

LOST of Oriane Siméoni et al., BMVC 2021, arXiv 2109.14279; TokenCut of Yangtao Wang et al., CVPR 2022, arXiv
2202.11539; MOST of Sai Saketh Rambhatla et al., ICCV 2023, arXiv 2304.05387: see `parts/discovery`. CorLoc is the share
of images in which a predicted box overlaps that of an object by half or more (intersection over union). Deviations:
images are seen whole at the encoder's size, where the authors have them at their own; those without an object do not
count.
"""

from collections.abc import Iterator
from types import MappingProxyType
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from selfsup.errors import DataError
from selfsup.evaluator import Evaluator, Features, Map, Metric, Score, check, maps_of
from selfsup.feature_choice import FeatureChoice
from selfsup.knob import Choice, Knobs, knob

ENOUGH = 0.5  # overlap of a box that is right


class Discovery(Evaluator):
    """Share of images with an object that is found (CorLoc), by the features of patches alone."""

    reads, target = "keys", "inst"
    metrics = MappingProxyType({"corloc": Metric()})

    class Hyper(Knobs):
        by: Literal["lost", "token_cut", "most"] = knob(
            "lost", "algorithm; most finds several objects", sweep=Choice("lost", "token_cut", "most")
        )
        feature: Literal["keys", "tokens"] = knob(
            "keys", "of a patch: its keys in the last attention of a ViT, or what the encoder ends in"
        )
        seeds: int = knob(100, "patches that LOST lets vote, at most", ge=1)

    def __init__(self, hyper: Hyper) -> None:
        self.hyper = hyper

    @classmethod
    def reads_of(cls, hyper: Hyper) -> FeatureChoice:
        return FeatureChoice(hyper.feature, squashed=True)

    def run(self, features: Features, *, seed: int, device: str = "cpu") -> Iterator[tuple[str, Score]]:  # noqa: ARG002
        check(features, labelled=False)
        _, maps = maps_of(features)
        hits = [self.is_found(value, map_) for value, map_ in zip(features.val, maps, strict=True) if map_.any()]
        if not hits:
            raise DataError("evaluation: no validation image shows an object")
        yield "corloc", 100 * float(np.mean(hits))

    def is_found(self, value: NDArray[np.float32], map_: Map) -> bool:
        """(T, D), (S, S) -> whether a box that is found is that of an object of the map"""
        from selfsup.parts.discovery import overlap
        from selfsup.parts.objects import boxes_of

        patches = round(len(value) ** 0.5)
        boxes = np.array(self.boxes(value, (patches, patches)), np.float64).reshape(-1, 4) * (len(map_) / patches)
        return any(overlap(box, boxes_of(map_)).max() >= ENOUGH for box in boxes)

    def boxes(self, value: NDArray[np.float32], grid: tuple[int, int]) -> list[tuple[int, int, int, int]]:
        """(T, D) -> left, top, right and bottom of what is found, in patches"""
        from selfsup.parts.discovery import lost, most, token_cut

        value = value.astype(np.float64)
        if self.hyper.by == "lost":
            return lost(value, grid, seeds=self.hyper.seeds)
        return token_cut(value, grid) if self.hyper.by == "token_cut" else most(value, grid)

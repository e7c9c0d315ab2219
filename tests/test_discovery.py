"""CorLoc of boxes that are found in features, by hand."""

import numpy as np
import pytest

from selfsup.errors import DataError
from selfsup.evals.discovery import Discovery
from selfsup.evaluator import Features
from selfsup.feature_choice import FeatureChoice
from selfsup.parts.objects import boxes_of

PATCHES, SIDE = 6, 8  # of an image, and pixels of a patch


def value(left: int, top: int, right: int, bottom: int) -> np.ndarray:
    """(36, 16): a ground that is nowhere the same, and an object that correlates with itself alone."""
    draw = np.random.default_rng(0)
    made = np.zeros((PATCHES, PATCHES, 16), np.float32)
    made[..., 0] = 1 + draw.random((PATCHES, PATCHES))
    made[top:bottom, left:right] = -1 * np.eye(16)[0]
    return made.reshape(-1, 16)


def shown(*boxes: tuple[int, int, int, int]) -> np.ndarray:
    map_ = np.zeros((PATCHES * SIDE, PATCHES * SIDE), np.int32)
    for number, (left, top, right, bottom) in enumerate(boxes, start=1):
        map_[top:bottom, left:right] = number
    return map_


def features(maps: list[np.ndarray]) -> Features:
    tokens, label = np.stack([value(1, 2, 4, 5)] * len(maps)), np.full(len(maps), -1)
    return Features(tokens, label, tokens, label, 0, np.stack(maps), np.stack(maps))


@pytest.mark.parametrize("by", ["lost", "token_cut", "most"])
def test_a_box_is_right_by_half_of_the_union(by: str) -> None:
    """The object found lies at 8 to 32 by 16 to 40 pixels: 576 of them."""
    maps = [
        shown((8, 16, 32, 40)),
        shown((0, 0, 9, 9), (8, 16, 20, 40)),  # 288 of 576
        shown((8, 16, 19, 40)),  # 264 of 576
        shown(),
    ]
    scores = dict(Discovery(Discovery.Hyper(by=by)).run(features(maps), seed=0))
    assert scores == pytest.approx({"corloc": 100 * 2 / 3})


def test_boxes_are_those_of_the_objects() -> None:
    map_ = shown((3, 4, 10, 12), (20, 0, 48, 5))
    map_[map_ == 2] = 5  # numbers may have gaps
    assert boxes_of(map_).tolist() == [[3, 4, 10, 12], [20, 0, 48, 5]]


def test_features_are_of_the_whole_image() -> None:
    assert Discovery.reads_of(Discovery.Hyper()) == FeatureChoice("keys", squashed=True)
    assert Discovery.reads_of(Discovery.Hyper(feature="tokens")) == FeatureChoice("tokens", squashed=True)


def test_images_without_objects_cannot_be_scored() -> None:
    with pytest.raises(DataError, match="no validation image shows an object"):
        dict(Discovery(Discovery.Hyper()).run(features([shown()]), seed=0))

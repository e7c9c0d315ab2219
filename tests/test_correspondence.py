"""Correspondence: views shifted by hand, chance, a loop over places, and Lowe's ratio."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

from selfsup.errors import DataError
from selfsup.evals.correspondence import Correspondence
from selfsup.evaluator import Features

PATCHES, SIDE = 8, 32
Array = NDArray[np.float32]


def features(left: Array, right: Array, disparity: Array) -> Features:
    label = np.full(len(left), -1)
    return Features(left[:0], label[:0], left, label, 0, disparity[:0], disparity, views=right[None])


def scores(left: Array, right: Array, disparity: Array, **knobs: int) -> dict[str, float]:
    evaluator = Correspondence(Correspondence.Hyper(**knobs))
    return {name: float(np.mean(score)) for name, score in evaluator.run(features(left, right, disparity), seed=0)}


def tokens(images: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=(images, PATCHES**2, 16)).astype(np.float32)


def shifted(left: Array, patches: int) -> Array:
    grid = left.reshape(-1, PATCHES, PATCHES, left.shape[-1])
    return np.roll(grid, -patches, axis=2).reshape(left.shape)


def shift_map(images: int, pixels: float) -> Array:
    return np.full((images, SIDE, SIDE), pixels, np.float32)


@pytest.mark.parametrize("patches", [1, 3])
def test_a_view_that_is_shifted_by_patches_is_found_whole(patches: int) -> None:
    """A patch is 4 of 32 pixels, 20 of 160: one farther, what stays in place is wrong by 20, which is not less."""
    left = tokens(3)
    found = scores(left, shifted(left, patches), shift_map(3, 4.0 * patches))
    assert found == {"recall5": 100, "recall10": 100, "recall20": 100, "still10": 0}
    wrong = scores(left, shifted(left, patches), shift_map(3, 4.0 * patches - 1))  # a quarter patch, 5 of 160
    assert (wrong["recall5"], wrong["recall10"]) == (0, 100)
    still = scores(left, left, shift_map(3, 1e-3))  # two views that are one
    assert still == {"recall5": 100, "recall10": 100, "recall20": 100, "still10": 100}


def test_random_features_are_right_as_often_as_a_random_place() -> None:
    """In 64 places 20 pixels of 160 apart, those less than 10 or 20 from where a point is, 12 of 32 columns = 3 places
    on: one, its own, of 64, by both; nothing else lies within. One and a half patches on, two are 10 off: by 20, two.
    """
    left, right = tokens(200, 1), tokens(200, 2)
    assert scores(left, right, shift_map(200, 12.0))["recall20"] == pytest.approx(100 / 64, abs=0.5)
    between = scores(left, right, shift_map(200, 6.0))
    assert between["recall20"] == pytest.approx(200 / 64, abs=0.7)
    assert between["recall10"] == 0


def looped(left: Array, right: Array, disparity: Array, stride: int, matches: int) -> list[float]:
    """-> recalls of one image, place by place, with features as scipy interpolates them"""
    places = SIDE // stride
    middle = [(number + 0.5) * stride for number in range(places)]
    spots = [(row, column) for row in middle for column in middle]

    def at(view: Array) -> list[NDArray[np.float64]]:
        grid = view.reshape(PATCHES, PATCHES, -1)
        where = [[spot[axis] * PATCHES / SIDE - 0.5] for spot in spots for axis in (0, 1)]
        rows, columns = np.array(where[::2]).ravel(), np.array(where[1::2]).ravel()
        channels = [
            map_coordinates(grid[..., c].astype(float), [rows, columns], order=1, mode="nearest")
            for c in range(grid.shape[2])
        ]
        return [vector / np.linalg.norm(vector) for vector in np.array(channels).T]

    one, other, found = at(left), at(right), []
    for spot, vector in zip(spots, one, strict=True):
        shift = float(disparity[int(spot[0]), int(spot[1])])
        if shift > 0 and spot[1] - shift > 0:
            distance = [1 - float(vector @ key) for key in other]
            best, second = np.argsort(distance)[:2]
            row, column = spots[best]
            error = math.hypot(row - spot[0], column - spot[1] + shift) * 160 / SIDE
            found.append((distance[best] / distance[second], error))
    errors = [error for _, error in sorted(found)[:matches]]
    return [100 * sum(error < pixels for error in errors) / len(errors) for pixels in (5, 10, 20)]


def test_a_loop_over_places_agrees() -> None:
    draw = np.random.default_rng(3)
    left = tokens(4)
    right = (shifted(left, 1) + 0.7 * tokens(4, seed=5)).astype(np.float32)
    disparity = draw.uniform(2, 6, (4, SIDE, SIDE)).astype(np.float32)
    disparity[draw.random(disparity.shape) < 0.3] = 0
    for stride, matches in ((4, 1000), (2, 1000), (2, 40)):
        loops = [looped(*pair, stride, matches) for pair in zip(left, right, disparity, strict=True)]
        found = scores(left, right, disparity, stride=stride, matches=matches)
        assert [found[f"recall{pixels}"] for pixels in (5, 10, 20)] == pytest.approx(np.mean(loops, axis=0), abs=1e-4)


def test_of_few_matches_those_count_whose_second_best_is_far() -> None:
    """Half of the places look alike in both views: of the surest half all are right, of all many are not."""
    left = tokens(2)
    left.reshape(2, PATCHES, PATCHES, -1)[:, PATCHES // 2 :] = left[:, :1, None]
    right, disparity = shifted(left, 1), shift_map(2, 4.0)
    seen = PATCHES * (PATCHES - 1) // 2
    assert scores(left, right, disparity, matches=seen)["recall10"] == 100
    assert scores(left, right, disparity)["recall10"] < 60


def test_pairs_that_show_no_point_twice_are_refused() -> None:
    left = tokens(2)
    with pytest.raises(DataError, match="no validation image shows a point"):
        scores(left, left, shift_map(2, 0))
    one = shift_map(2, 4.0) * np.array([1, 0], np.float32)[:, None, None]
    assert scores(left, shifted(left, 1), one)["recall5"] == 100  # one of the two counts

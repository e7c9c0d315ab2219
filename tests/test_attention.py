"""Masks of attention against objects whose overlap with them is counted by hand."""

import numpy as np
import pytest

from selfsup.errors import DataError
from selfsup.evals.attention import AttentionMasks, jaccard, masks
from selfsup.evaluator import Features

SIDE = 4  # pixels a side of a patch


def features(attention: np.ndarray, *maps: np.ndarray) -> Features:
    value, label = np.repeat(attention[None].astype(np.float32), len(maps), 0), np.full(len(maps), -1)
    return Features(value, label, value, label, 0, np.stack(maps), np.stack(maps))


def shown(patches: list[list[int]]) -> np.ndarray:
    """The number of the object in each pixel, by that in each patch."""
    return np.kron(np.array(patches, np.int32), np.ones((SIDE, SIDE), np.int32))


def test_a_mask_holds_the_largest_shares() -> None:
    attention = np.array([[0.5, 0.1], [0.3, 0.2], [0.15, 0.3], [0.05, 0.4]])
    np.testing.assert_array_equal(masks(attention, 0.6), [[True, False], [True, False], [False, True], [False, True]])
    np.testing.assert_array_equal(masks(7 * attention, 0.6), masks(attention, 0.6))
    assert masks(attention, 0.45)[:, 0].tolist() == [True, False, False, False]


def test_overlap_is_counted_in_pixels() -> None:
    map_ = shown([[1, 1], [0, 2]])
    map_[0, 0] = 0  # object 1: 31 pixels
    mask = np.array([[True, True], [False, True], [False, False], [True, False]])
    np.testing.assert_allclose(jaccard(mask, map_), [[15 / (31 + 32 - 15), 31 / 32], [16 / 32, 0 / 48]])


def test_each_object_has_the_head_that_fits_it_best_and_images_without_one_do_not_count() -> None:
    attention = np.array([[0.97, 0.01], [0.01, 0.01], [0.01, 0.01], [0.01, 0.97]])
    first, second = shown([[1, 0], [0, 2]]), shown([[1, 1], [0, 0]])
    scores = dict(AttentionMasks(AttentionMasks.Hyper()).run(features(attention, first, second, 0 * first), seed=0))
    assert scores == pytest.approx({"jaccard": 100 * (1 + 1 / 2) / 2})
    with pytest.raises(DataError, match="no validation image shows an object"):
        dict(AttentionMasks(AttentionMasks.Hyper()).run(features(attention, 0 * first), seed=0))

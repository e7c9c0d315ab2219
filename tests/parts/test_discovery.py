"""Objects that are found by features alone, in images where it is plain where they are."""

import numpy as np
import pytest

from selfsup.parts.discovery import lost, most, overlap, token_cut

GRID = (6, 8)
OBJECT = (2, 1, 5, 4)  # left, top, right, bottom


def features(box: tuple[int, int, int, int] = OBJECT, *, noise: float = 0.1) -> np.ndarray:
    """(48, 16): a ground of one direction and an object of the opposite, with noise of its own in each patch."""
    left, top, right, bottom = box
    value = np.zeros((*GRID, 16))
    value[..., 0], value[top:bottom, left:right, 0] = 1, -1
    return value.reshape(-1, 16) + noise * np.random.default_rng(0).normal(size=(48, 16))


@pytest.mark.parametrize("find", [lost, token_cut])
@pytest.mark.parametrize("box", [OBJECT, (0, 0, 3, 3), (5, 3, 8, 6), (3, 2, 4, 3)])
def test_a_small_object_is_found(find, box) -> None:
    assert find(features(box), GRID) == [box]


@pytest.mark.parametrize("find", [lost, token_cut])
def test_only_the_part_that_hangs_together_is_boxed(find) -> None:
    value = features().reshape(*GRID, 16)
    value[5, 7] = value[2, 3]  # one patch of the same kind, far off
    assert find(value.reshape(-1, 16), GRID) in ([OBJECT], [(7, 5, 8, 6)])


def test_lost_by_hand() -> None:
    """In a row of five patches the last two correlate with each other alone, which is less than the others do."""
    value = np.array([[1.0, 0.1], [1.0, 0.2], [1.0, 0.0], [-1.0, 0.0], [-0.5, 0.0]])
    assert lost(value, (1, 5)) == [(3, 0, 5, 1)]
    assert lost(value, (1, 5), seeds=1) == [(3, 0, 5, 1)]


def test_token_cut_by_hand() -> None:
    """Two patches and three that nothing joins: the cut is between them, and its vector is largest in the smaller."""
    value = np.eye(2)[[0, 0, 0, 1, 1]]
    assert token_cut(value, (1, 5)) == [(3, 0, 5, 1)]


def test_most_finds_several_objects_and_drops_lines() -> None:
    """Two objects, which correlate with nothing else, a line of one row, and a ground that is nowhere the same."""
    value = np.zeros((*GRID, 16))
    value[..., 0] = 1 + np.random.default_rng(0).random(GRID)
    for channel, (left, top, right, bottom) in enumerate([(0, 0, 2, 2), (5, 1, 8, 3), (1, 5, 6, 6)], start=1):
        value[top:bottom, left:right] = 0
        value[top:bottom, left:right, channel] = 1
    assert sorted(most(value.reshape(-1, 16), GRID)) == [(0, 0, 2, 2), (5, 1, 8, 3)]


def test_no_object_is_found_where_there_are_no_features() -> None:
    assert lost(np.zeros((48, 4)), GRID) == most(np.zeros((48, 4)), GRID) == []


def test_overlap() -> None:
    others = np.array([[0, 0, 2, 2], [1, 1, 3, 3], [2, 2, 3, 3], [0, 0, 4, 4]], float)
    np.testing.assert_allclose(overlap((0, 0, 2, 2), others), [1, 1 / 7, 0, 4 / 16])

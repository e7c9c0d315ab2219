"""Tube masks against VideoMAE's published rule: one spatial mask for all frames, of int(ratio * P) places."""

import pytest
import torch

from selfsup.masks import RandomMask
from selfsup.tubemask import TubeMask

GRID = 8, 14, 14  # of 16 frames of 224 pixels, tubelets of 2 x 16 x 16


def test_the_mask_of_videomae_hides_the_same_176_of_196_places_in_every_frame() -> None:
    mask = TubeMask(0.9).draw(torch.rand(5, 196), GRID)
    assert (mask.keep.shape, mask.hide.shape) == ((5, 160), (5, 1408))
    frames = mask.removed.view(5, 8, 196)
    assert (frames == frames[:, :1]).all()
    assert (frames.sum(dim=2) == 176).all()
    assert TubeMask(0.9).typical(GRID) == (160, 1408)
    assert (mask.keep.diff(dim=1) > 0).all(), "in the order of the grid"


def test_every_place_is_hidden_equally_often_and_by_itself() -> None:
    torch.manual_seed(0)
    hidden = TubeMask(0.75).draw(torch.rand(8000, 16), (2, 4, 4)).removed[:, :16].double()
    assert (hidden.mean(0) - 0.75).abs().max() < 4 * (0.75 * 0.25 / 8000) ** 0.5
    together = hidden.T @ hidden / 8000
    expected = 12 / 16 * 11 / 15  # of any two places
    assert (together - together.diag().diag() + expected * torch.eye(16) - expected).abs().max() < 0.03


def test_a_mask_by_hand() -> None:
    mask = TubeMask(0.5).draw(torch.tensor([[0.3, 0.1, 0.4, 0.2]]), (2, 2, 2))
    assert mask.keep.tolist() == [[1, 3, 5, 7]]
    assert mask.hide.tolist() == [[0, 2, 4, 6]]


def test_agnostic_masks_of_mae_st_and_cubes_are_random_masks_on_three_axes() -> None:
    """int(1568 * 0.1) tokens stay, anywhere; of cubes of 2 tokens a side whole ones."""
    assert RandomMask(0.9).draw(torch.rand(2, 1568), GRID).keep.shape == (2, 156)
    removed = RandomMask(0.75, 2).draw(torch.rand(3, 4 * 7 * 7), GRID).removed.view(3, 4, 2, 7, 2, 7, 2)
    cubes = removed.permute(0, 1, 3, 5, 2, 4, 6).flatten(4).flatten(1, 3)
    assert (cubes == cubes[..., :1]).all()
    assert (cubes[..., 0].sum(dim=1) == 147).all()


@pytest.mark.parametrize("ratio", [0.0, 1.0])
def test_a_mask_that_keeps_all_or_nothing_is_refused(ratio: float) -> None:
    with pytest.raises(AssertionError, match="of 8 tokens"):
        TubeMask(ratio).draw(torch.rand(1, 4), (2, 2, 2))

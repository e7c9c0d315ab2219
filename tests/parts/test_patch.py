import pytest
import torch
from torch.nn import functional as F

from selfsup.parts.patch import patchify, pixels, seen_by, turned, turns, unpatchify
from selfsup.parts.tokens import Tokens, joined


def test_a_patch_is_its_pixels_row_by_row_channels_last():
    images = torch.arange(2 * 4 * 6).reshape(1, 2, 4, 6)  # a pixel of channel 1 is its neighbor's value + 24
    tokens = patchify(images, 2)
    assert tokens.value.shape == (1, 6, 8)
    assert tokens.value[0, 4].tolist() == [14, 38, 15, 39, 20, 44, 21, 45]  # row 1, column 1
    assert tokens.coord.tolist() == [[[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2]]]
    assert (tokens.grid, tokens.valid) == ((2, 3), None)


def test_patches_are_those_of_unfold():
    images = torch.randn(3, 3, 24, 40)
    unfolded = F.unfold(images, 8, stride=8).mT.reshape(3, 15, 3, 64)  # (channel, row and column)
    torch.testing.assert_close(patchify(images, 8).value, unfolded.mT.flatten(2), rtol=0, atol=0)


def test_unpatchify_inverts_patchify():
    images = torch.randn(2, 5, 12, 8)
    torch.testing.assert_close(unpatchify(patchify(images, 4).value, grid=(3, 2), patch=4), images, rtol=0, atol=0)


def test_what_does_not_divide_is_refused():
    with pytest.raises(AssertionError, match="30x32 points do not divide into patches of 16"):
        patchify(torch.zeros(1, 3, 30, 32), 16)
    with pytest.raises(AssertionError, match="grid"):
        unpatchify(torch.zeros(1, 6, 12), grid=(2, 2), patch=2)


@pytest.mark.parametrize("quarters", range(5))
def test_turned_tokens_are_those_of_the_turned_image(quarters: int) -> None:
    images = torch.randn(2, 3, 12, 12)
    expected = patchify(torch.rot90(images, quarters, (2, 3)), 4)
    tokens = turned(patchify(images, 4), quarters, 4)
    assert isinstance(tokens, Tokens)
    assert tokens.value.equal(expected.value)
    assert tokens.coord.equal(expected.coord)
    assert turned(images, quarters, None).equal(torch.rot90(images, quarters, (2, 3)))


def test_padding_turns_with_its_tokens() -> None:
    tokens = patchify(torch.randn(1, 3, 8, 8), 4)._replace(valid=torch.tensor([[False, True, True, True]]))
    assert turned(tokens, 1, 4).valid.tolist() == [[True, True, False, True]]  # from the upper left to the lower left


def test_a_tubelet_is_its_frames_rows_and_columns_channels_last() -> None:
    clip = torch.arange(2 * 4 * 2 * 4).reshape(1, 2, 4, 2, 4)  # channel, frame, row, column
    tokens = patchify(clip, (2, 2, 2))
    assert tokens.coord[0].tolist() == [[0, 0, 0], [0, 0, 1], [1, 0, 0], [1, 0, 1]]
    first = [
        8 * frame + 4 * row + column + 32 * channel
        for frame in (0, 1)
        for row in (0, 1)
        for column in (2, 3)
        for channel in (0, 1)
    ]
    assert tokens.value[0, 1].tolist() == first
    assert unpatchify(tokens.value, grid=tokens.grid, patch=(2, 2, 2)).equal(clip)


def test_places_are_numbered_with_the_last_axis_fastest_and_padding_joins() -> None:
    tokens = patchify(torch.randn(2, 1, 2, 2, 6), (1, 2, 2))  # a grid of 2, 1 and 3
    assert tokens.place.tolist() == list(range(6))
    order = torch.tensor([5, 0, 3])
    assert tokens._replace(coord=tokens.coord[:, order].clone()).place.tolist() == [order.tolist()] * 2
    padded = tokens._replace(valid=torch.zeros(2, 6, dtype=torch.bool))
    assert joined([tokens, tokens]).valid is None
    assert joined([tokens, padded]).valid.tolist() == [[True] * 6] * 2 + [[False] * 6] * 2


def test_turns_are_the_four_orientations_one_after_the_other() -> None:
    images = torch.randn(2, 3, 8, 8)
    expected = torch.cat([torch.rot90(images, quarters, (2, 3)) for quarters in range(4)])
    assert turns(images, None).equal(expected)
    assert turns(patchify(images, 4), 4).value.equal(patchify(expected, 4).value)


def test_pixels_are_those_of_the_view() -> None:
    images = torch.randn(2, 3, 8, 12)
    assert pixels(seen_by(images, 4), 4).equal(images)
    assert seen_by(images, None) is images
    assert pixels(images, None) is images

import itertools

import numpy as np
import pytest
import torch
from torchvision.transforms.functional import resized_crop

from selfsup.parts.pretext import (
    at_each_piece,
    inner_boxes,
    mirrored,
    one_channel,
    parts_at,
    permutations,
    pieces,
    replicated,
    shuffled,
    standardized,
    turned,
    zoomed,
)


def test_pieces_lie_within_their_cells_at_the_places_drawn() -> None:
    images, draws = torch.randn(3, 2, 255, 255), torch.rand(3, 18)
    found = pieces(images, draws)
    assert found.shape == (3, 9, 2, 64, 64)
    for sample in range(3):
        for number in range(9):
            row, column = divmod(number, 3)
            top = 85 * row + int(22 * draws[sample, 2 * number])  # 22 places in 85 - 64 pixels of room
            left = 85 * column + int(22 * draws[sample, 2 * number + 1])
            assert found[sample, number].equal(images[sample, :, top : top + 64, left : left + 64])


def test_draws_reach_both_ends_of_a_cell() -> None:
    images = torch.arange(24 * 24.0).view(1, 1, 24, 24)  # cells of 8, pieces of 6
    low, high = pieces(images, torch.zeros(1, 18)), pieces(images, torch.full((1, 18), 0.999999))
    assert low[0, 0].equal(images[0, :, :6, :6])
    assert high[0, 8].equal(images[0, :, -6:, -6:])


def test_each_sample_is_shuffled_by_its_own_draws() -> None:
    x = torch.arange(8.0).view(2, 4, 1)
    found = shuffled(x, torch.tensor([[0.9, 0.1, 0.5, 0.3], [0.1, 0.2, 0.3, 0.4]]))
    assert found[..., 0].tolist() == [[1, 3, 2, 0], [4, 5, 6, 7]]


def test_images_are_turned_by_quarters() -> None:
    images = torch.randn(4, 3, 5, 5)
    found = turned(images, torch.tensor([0.0, 0.3, 0.6, 0.99]))
    for number in range(4):
        assert found[number].equal(torch.rot90(images[number], number, (1, 2)))


def test_half_of_all_images_are_mirrored() -> None:
    images = torch.randn(2, 2, 3, 4, 5)
    found = mirrored(images, torch.tensor([[0.0, 0.5], [0.99, 0.49]]))
    for sample, number, is_mirrored in ((0, 0, True), (0, 1, False), (1, 0, False), (1, 1, True)):
        image = images[sample, number]
        assert found[sample, number].equal(image[:, :, [4, 3, 2, 1, 0]] if is_mirrored else image)


def test_pieces_move_around_the_middle_of_their_cells() -> None:
    images = torch.arange(36 * 36.0).view(1, 1, 36, 36)  # cells of 12: pieces of 8, 1 to 3 pixels from the edge
    for draw, first in ((0.0, 1), (0.5, 2), (0.999999, 3)):
        cut = pieces(images, torch.full((1, 18), draw), piece=8, jitter=2)
        assert cut[0, 0].equal(images[0, :, first : first + 8, first : first + 8])
        assert cut[0, 8].equal(images[0, :, 24 + first : 32 + first, 24 + first : 32 + first])


def test_pieces_that_do_not_fit_are_refused() -> None:
    with pytest.raises(AssertionError, match="pieces of 10 pixels that move by 3 do not fit cells of 12"):
        pieces(torch.zeros(1, 1, 36, 36), torch.zeros(1, 18), piece=10, jitter=3)


def test_pieces_are_embedded_each_at_its_place() -> None:
    cut = torch.randn(2, 9, 3, 4, 4)
    embedded = at_each_piece(lambda images: images.mean((2, 3)), cut)
    torch.testing.assert_close(embedded, cut.mean((3, 4)))


def test_an_image_is_standardized_by_its_own_moments() -> None:
    images = 3 + 2 * torch.randn(2, 5, 3, 4, 4)
    expected = images.numpy()
    axes = (2, 3, 4)
    expected = (expected - expected.mean(axes, keepdims=True)) / expected.std(axes, keepdims=True)
    np.testing.assert_allclose(standardized(images).numpy(), expected, rtol=1e-4, atol=1e-5)
    assert not standardized(torch.ones(1, 3, 2, 2)).any()


def test_one_channel_is_kept() -> None:
    images = torch.randn(3, 3, 4, 4)
    kept = one_channel(images, torch.tensor([0.0, 0.5, 0.99]))
    for number in range(3):
        expected = torch.zeros(3, 4, 4)
        expected[number] = images[number, number] - images[number, number].mean()
        torch.testing.assert_close(kept[number], expected)


def test_permutations_are_the_farthest_from_those_before() -> None:
    """Each step of the greedy algorithm, over all 24 orders of four pieces, by Hamming distances in loops."""
    every = list(itertools.permutations(range(4)))
    chosen = [tuple(row) for row in permutations(24, 4).tolist()]
    assert sorted(chosen) == every

    def total(order: tuple[int, ...], others: list[tuple[int, ...]]) -> int:
        return sum(a != b for other in others for a, b in zip(order, other, strict=True))

    for number in range(1, 24):
        before = chosen[:number]
        assert total(chosen[number], before) == max(total(order, before) for order in every if order not in before)


def test_permutations_of_nine_are_eight_places_apart() -> None:
    """As the paper's table 4 has it for all its sets: 8 on average; the first nine differ everywhere."""
    orders = permutations(100)
    assert len({tuple(row) for row in orders.tolist()}) == 100
    assert all(sorted(row) == list(range(9)) for row in orders.tolist())
    apart = (orders[:, None] != orders[None]).sum(axis=2)[np.triu_indices(100, 1)]
    assert 8 <= apart.mean() < 8.1
    assert ((orders[:9, None] != orders[None, :9]).sum(axis=2)[np.triu_indices(9, 1)] == 9).all()
    assert permutations(50).tolist() == orders[:50].tolist()


def test_parts_of_clips_begin_where_they_are_asked_for() -> None:
    clips, corner = torch.randn(2, 3, 8, 6, 5), torch.tensor([[[0, 0, 0], [4, 2, 1]], [[1, 3, 2], [6, 1, 0]]])
    cut = parts_at(clips, corner, (2, 3, 3))
    assert cut.shape == (2, 2, 3, 2, 3, 3)
    for sample in range(2):
        for number, (time, top, left) in enumerate(corner[sample].tolist()):
            expected = clips[sample, :, time : time + 2, top : top + 3, left : left + 3]
            assert cut[sample, number].equal(expected)


def test_one_channel_stands_for_all() -> None:
    clips = torch.randn(3, 3, 2, 4, 4)
    seen = replicated(clips, torch.tensor([0.0, 0.5, 0.99]))
    for number in range(3):
        assert all(seen[number, channel].equal(clips[number, number]) for channel in range(3))


def test_inner_boxes_are_those_of_a_random_resized_crop_that_fits() -> None:
    boxes = inner_boxes(torch.rand(4000, 4), 64, (0.3, 0.5))  # of these areas any ratio fits
    top, left, height, width = boxes.unbind(1)
    assert torch.stack([top, left]).min() == 0
    assert (top + height).max() == (left + width).max() == 64
    area, ratio = height * width / 64**2, width / height
    assert 0.285 < area.min() < 0.315
    assert 0.485 < area.max() < 0.515
    assert 0.72 < ratio.min() < 0.77
    assert 1.3 < ratio.max() < 1.38
    assert ratio.log().mean().abs() < 0.02
    assert inner_boxes(torch.full((1, 4), 1 - 2**-24), 64, (0.9, 0.9)).tolist() == [[11, 0, 53, 64]]


def test_boxes_are_zoomed_as_torchvision_resizes_crops() -> None:
    patches, boxes = torch.randn(2, 3, 3, 2, 16, 16), inner_boxes(torch.rand(2, 3, 4), 16, (0.3, 1.0))
    seen = zoomed(patches, boxes)
    for sample in range(2):
        for number, box in enumerate(boxes[sample].int().tolist()):
            expected = resized_crop(patches[sample, number], *box, [16, 16])
            torch.testing.assert_close(seen[sample, number], expected, rtol=1e-4, atol=1e-5)

import math
import random

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import ndimage

from selfsup.groupmask import GroupMask
from selfsup.masks import (
    ATTEMPTS,
    ROUNDS,
    AxisMask,
    BlockMask,
    BoolMask,
    FilledBlockMask,
    GridMask,
    IndexMask,
    RandomMask,
    SquareMask,
    squares,
)


def test_a_mask_by_hand():
    mask = RandomMask(0.5).draw(torch.tensor([[0.3, 0.1, 0.4, 0.2], [0.9, 0.8, 0.0, 0.7]]), (2, 2))
    assert mask.keep.tolist() == [[1, 3], [2, 3]]
    assert mask.hide.tolist() == [[0, 2], [1, 0]]
    assert mask.restore.tolist() == [[2, 0, 3, 1], [3, 2, 0, 1]]
    assert mask.removed.tolist() == [[True, False, True, False], [True, True, False, False]]


def test_restore_puts_kept_and_removed_tokens_back():
    torch.manual_seed(0)
    tokens = torch.randn(5, 49)
    mask = RandomMask(0.75).draw(torch.rand(5, 49), (7, 7))
    kept = tokens.gather(1, mask.keep)
    assert kept.shape == (5, 12)  # int(49 / 4)
    placeholder = torch.full((5, 37), torch.inf)
    back = torch.cat([kept, placeholder], dim=1).gather(1, mask.restore)
    torch.testing.assert_close(back, tokens.masked_fill(mask.removed, torch.inf), rtol=0, atol=0)


def test_every_token_is_removed_equally_often():
    torch.manual_seed(0)
    removed = RandomMask(0.75).draw(torch.rand(8000, 16), (4, 4)).removed.double().mean(0)
    assert (removed - 0.75).abs().max() < 4 * (0.75 * 0.25 / 8000) ** 0.5


def test_equal_noise_keeps_the_first_tokens():
    assert RandomMask(0.75).draw(torch.zeros(1, 64), (8, 8)).keep.tolist() == [list(range(16))]


@pytest.mark.parametrize("ratio", [0.0, 0.99])
def test_a_mask_that_keeps_all_or_nothing_is_refused(ratio):
    with pytest.raises(AssertionError, match="of 4 tokens"):
        RandomMask(ratio).draw(torch.rand(1, 4), (4,))


@pytest.mark.parametrize(
    ("stride", "grid", "keep"),
    [(2, (4, 4), [0, 2, 8, 10]), (2, (3, 5), [0, 2, 4, 10, 12, 14]), (3, (2, 2, 4), [0, 3]), (4, (4, 4), [0])],
)
def test_a_grid_keeps_the_first_token_of_each_cell(stride, grid, keep):
    rule = GridMask(stride)
    mask = rule.draw(torch.empty(2, rule.num_draws(grid)), grid)
    assert mask.keep.tolist() == [keep] * 2
    assert mask.removed.tolist() == [[number not in keep for number in range(math.prod(grid))]] * 2
    assert rule.typical(grid) == (len(keep), math.prod(grid) - len(keep))


def test_squares_are_those_of_the_least_noise():
    """0.4 of six squares of 2 x 2 tokens are 2.4: three."""
    rule, grid = SquareMask(0.4, 2), (4, 6)
    mask = rule.draw(torch.tensor([[0.3, 0.9, 0.1, 0.2, 0.8, 0.7]]), grid)
    assert mask.where.view(grid).int().tolist() == [[1, 1, 0, 0, 1, 1]] * 2 + [[1, 1, 0, 0, 0, 0]] * 2
    assert mask.number.tolist() == [12]
    assert rule.typical(grid) == (24, 12)
    assert mask.removed.equal(mask.where)


def test_every_square_is_replaced_equally_often():
    torch.manual_seed(0)
    rule = SquareMask(0.6, 2)
    where = rule.draw(torch.rand(4000, rule.num_draws((8, 8))), (8, 8)).where.view(-1, 4, 2, 4, 2)
    assert where.equal(where[:, :, :1, :, :1].expand_as(where))  # each as a whole
    share = where[:, :, 0, :, 0].double().mean(0)
    assert (share - 10 / 16).abs().max() < 4.5 * (0.625 * 0.375 / 4000) ** 0.5


def beit(draws: list[float], grid: tuple[int, int], *, low: float, high: float, share: float, least: int) -> list[bool]:
    """One mask as BEiT's algorithm 1 makes it, in plain loops."""
    rows, columns = grid
    covered: set[tuple[int, int]] = set()
    goal = math.floor((low + (high - low) * draws[1] if draws[0] < share else 0.0) * rows * columns)
    failed = 0
    for number in range(ROUNDS):
        area, aspect, top, left = draws[2 + 4 * number : 6 + 4 * number]
        room = goal - len(covered)
        size, shape = least + area * (room - least), math.exp((1 - 2 * aspect) * math.log(0.3))
        height, width = round(math.sqrt(max(0, size * shape))), round(math.sqrt(max(0, size / shape)))
        first, start = math.floor(top * (rows - height + 1)), math.floor(left * (columns - width + 1))
        block = {(y, x) for y in range(first, first + height) for x in range(start, start + width)} - covered
        fits = height < rows and width < columns and 0 < len(block) <= room and failed < ATTEMPTS
        covered |= block if fits else set()
        failed = 0 if fits else failed + 1
    return [(y, x) in covered for y in range(rows) for x in range(columns)]


@pytest.mark.parametrize(
    ("grid", "share", "smallest", "least"),
    [((14, 14), 1.0, None, 16), ((6, 6), 0.5, None, 4), ((4, 4), 1.0, None, 1), ((14, 14), 1.0, 4, 4)],
)
def test_blocks_are_those_of_the_plain_algorithm(grid, share, smallest, least):
    torch.manual_seed(0)
    rule = BlockMask(0.1, 0.5, share, smallest)
    draws = torch.rand(64, rule.num_draws(grid), dtype=torch.float64)
    expected = [beit(each, grid, low=0.1, high=0.5, share=share, least=least) for each in draws.tolist()]
    assert rule.draw(draws, grid).where.tolist() == expected


def algorithm_1(draw: random.Random, goal: int) -> NDArray[np.bool_]:
    """-> (14, 14): blocks of 16 patches or more up to a goal, each tried ten times, as BEiT draws them."""
    covered = np.zeros((14, 14), dtype=bool)
    while room := goal - covered.sum():
        for _ in range(10):
            size, aspect = draw.uniform(16, room), math.exp(draw.uniform(math.log(0.3), -math.log(0.3)))
            height, width = round(math.sqrt(size * aspect)), round(math.sqrt(size / aspect))
            after = covered.copy()
            if height < 14 and width < 14:
                top, left = draw.randint(0, 14 - height), draw.randint(0, 14 - width)
                after[top : top + height, left : left + width] = True
            if 0 < after.sum() - covered.sum() <= room:
                break
        else:
            return covered
        covered = after
    return covered


def statistics(masks: NDArray[np.bool_]) -> NDArray[np.float64]:
    """(M, 14, 14) -> (M, 205): patches, and those below and beside each other, sides, pieces, and every place"""
    pieces = [np.bincount(ndimage.label(mask)[0].ravel())[1:] for mask in masks]
    rows, columns = (masks.any(axis).sum(1) for axis in (2, 1))
    return np.column_stack(
        [
            masks.sum((1, 2)),
            masks.sum((1, 2)) ** 2,
            (masks[:, 1:] & masks[:, :-1]).sum((1, 2)),
            (masks[:, :, 1:] & masks[:, :, :-1]).sum((1, 2)),
            rows,
            columns,
            abs(rows - columns),
            [len(sizes) for sizes in pieces],
            [max(sizes) for sizes in pieces],
            masks.reshape(len(masks), -1),
        ]
    ).astype(float)


@pytest.mark.parametrize(("ratio", "goal"), [(0.4, 78), (0.12, 23)])
def test_blocks_are_distributed_as_those_of_the_published_rule(ratio: float, goal: int) -> None:
    """Each mean of 2500 masks within five standard errors; of small masks most are one block, whose shape shows."""
    torch.manual_seed(0)
    draw, rule = random.Random(1), BlockMask(ratio, ratio, smallest=16)
    drawn = np.array([algorithm_1(draw, goal) for _ in range(2500)])
    where = rule.draw(torch.rand(2500, rule.num_draws((14, 14))), (14, 14)).where
    ours, theirs = statistics(where.view(-1, 14, 14).numpy()), statistics(drawn)
    error = np.sqrt((ours.var(axis=0) + theirs.var(axis=0)) / 2500)
    assert (abs(ours.mean(axis=0) - theirs.mean(axis=0)) <= 5 * error).all()


def test_no_more_is_covered_than_asked_and_often_nearly_that():
    torch.manual_seed(0)
    rule = BlockMask(0.3, 0.3)
    covered = rule.draw(torch.rand(500, rule.num_draws((14, 14))), (14, 14)).number
    assert covered.max() <= 58  # 0.3 of 196
    assert covered.double().mean() > 45


@pytest.mark.parametrize(("grid", "unit"), [((8, 8), 4), ((4, 6), 2), ((2, 4, 4), 2)])
def test_squares_stay_or_go_whole(grid, unit):
    torch.manual_seed(0)
    rule = RandomMask(0.75, unit)
    mask = rule.draw(torch.rand(500, rule.num_draws(grid)), grid)
    assert mask.keep.shape[1] == rule.typical(grid)[0] == int(rule.num_draws(grid) / 4) * unit ** len(grid)
    cut = [length for size in grid for length in (size // unit, unit)]
    cells = mask.removed.view(-1, *cut).permute(0, *range(1, 2 * len(grid), 2), *range(2, 2 * len(grid) + 1, 2))
    cells = cells.reshape(500, rule.num_draws(grid), -1)
    assert (cells.all(2) | ~cells.any(2)).all()
    share = rule.typical(grid)[1] / math.prod(grid)
    assert (cells.double().mean((0, 2)) - share).abs().max() < 4 * (share * (1 - share) / 500) ** 0.5


def test_squares_by_hand():
    assert squares((4, 4), 2).tolist() == [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]


@pytest.mark.parametrize(("ratio", "targets"), [(0.5, 98), (0.75, 147), (0.4, 78)])
def test_filled_blocks_hide_an_exact_number_and_all_that_blocks_do(ratio, targets):
    """Most masks have no two single tokens: rectangles alone miss the ratio by less than one."""
    torch.manual_seed(0)
    grid, rule, blocks = (14, 14), FilledBlockMask(ratio), BlockMask(ratio, ratio)
    draws = torch.rand(400, rule.num_draws(grid))
    mask, covered = rule.draw(draws, grid), blocks.draw(draws[:, : blocks.num_draws(grid)], grid)
    assert rule.typical(grid) == (196 - targets, targets)
    assert mask.hide.shape == (400, targets)
    assert torch.cat([mask.keep, mask.hide], dim=1).sort(dim=1).values.equal(torch.arange(196).expand(400, -1))
    assert not (covered.where & ~mask.removed).any()
    assert (targets - covered.number).double().mean() < 1
    assert rule.draw(draws[7:8], grid).hide.equal(mask.hide[7:8])  # of its own draws alone


def test_single_tokens_fill_blocks_up_equally_often():
    """Where no rectangle fits, nine of the 18 hidden tokens of a row are any."""
    torch.manual_seed(0)
    rule = FilledBlockMask(0.5)
    removed = rule.draw(torch.rand(4000, rule.num_draws((1, 18))), (1, 18)).removed.double().mean(0)
    assert (removed - 0.5).abs().max() < 4 * (0.25 / 4000) ** 0.5


def test_a_rule_knows_its_typical_mask_by_hand():
    """A quarter of 7 x 7 tokens is 12.25: MAE keeps 12. A half of masks of a fifth to two fifths are 0.15 of 100."""
    assert RandomMask(0.75).typical((7, 7)) == (12, 37)
    assert RandomMask(0.5).typical((2, 3, 4)) == (12, 12)  # a grid of any rank
    assert BlockMask(0.2, 0.4, share=0.5).typical((10, 10)) == (100, 15)


def test_a_blank_mask_has_the_typical_size():
    left_out, replaced = (rule.blank(3, (4, 4), "cpu") for rule in (RandomMask(0.75), BlockMask(0.2, 0.3)))
    assert isinstance(left_out, IndexMask)
    assert left_out.keep.tolist() == [[0, 1, 2, 3]] * 3
    assert left_out.removed.sum(dim=1).tolist() == [12] * 3
    assert isinstance(replaced, BoolMask)
    assert replaced.where.sum(dim=1).tolist() == replaced.number.tolist() == [4] * 3


def test_groups_cover_a_share_and_hardly_more() -> None:
    """Shares are uniform between a half and the ratio, but for the last rectangle, of 4 by 4 tokens at most."""
    rule, grid = GroupMask(0.7), (14, 14)
    noise = torch.rand(500, rule.num_draws(grid))
    mask = rule.draw(noise, grid)
    share, goal = mask.where.float().mean(dim=1), 0.5 + 0.2 * noise[:, 0]
    assert mask.number.tolist() == mask.where.sum(dim=1).tolist()
    assert (share >= goal - 1e-6).all()
    assert (share < goal + 16 / 196).all()
    assert rule.typical(grid) == (196, round(0.6 * 196))
    found = mask.where.view(-1, 14, 14).float().mean(dim=0)
    expected = torch.stack([by_hand(random.Random(seed)) for seed in range(500)]).float().mean(dim=0)
    assert (found - expected).abs().max() < 4.5 * (0.5 / 500) ** 0.5


def by_hand(draw: random.Random) -> torch.Tensor:
    """Return a mask of 14 by 14 tokens, rectangle after rectangle."""
    covered, goal = torch.zeros(14, 14, dtype=torch.bool), draw.uniform(0.5, 0.7) * 196
    while covered.sum() < goal:
        top, left = draw.randrange(14), draw.randrange(14)
        covered[top : top + draw.randint(1, 4), left : left + draw.randint(1, 4)] = True
    return covered


def test_groups_are_rectangles_where_they_were_drawn() -> None:
    rule = GroupMask(0.01)  # of 100 tokens one: the first rectangle is all
    for top, left, height, width in ((0.0, 0.0, 0.0, 0.0), (0.55, 0.2, 0.99, 0.4), (0.99, 0.95, 0.99, 0.99)):
        noise = torch.tensor([[0.0, top, left, height, width, *[0.5] * (4 * 127)]])
        expected = torch.zeros(10, 10, dtype=torch.bool)
        row, column = int(10 * top), int(10 * left)
        expected[row : row + 1 + int(3 * height), column : column + 1 + int(3 * width)] = True
        assert rule.draw(noise, (10, 10)).where.view(10, 10).equal(expected)


def published(noise: torch.Tensor, grid: tuple[int, int], ratios: tuple[float, float]) -> list[list[bool]]:
    """-> (times, frequencies): one mask as Audio-MAE's `random_masking_2d` makes it, in plain loops."""
    draws = noise[: grid[0]].tolist(), noise[grid[0] :].tolist()
    kept = [
        set(sorted(range(size), key=own.__getitem__)[: int(size * (1 - ratio))])
        for size, ratio, own in zip(grid, ratios, draws, strict=True)
    ]
    return [[not (time in kept[0] and pitch in kept[1]) for pitch in range(grid[1])] for time in range(grid[0])]


@pytest.mark.parametrize(("ratios", "seen"), [((0.7, 0.3), 19 * 5), ((0.8, 0.0), 12 * 8), ((0.0, 0.5), 64 * 4)])
def test_masks_along_axes_are_audio_maes(ratios, seen):
    torch.manual_seed(0)
    rule, grid = AxisMask(ratios), (64, 8)
    noise = torch.rand(50, rule.num_draws(grid))
    mask = rule.draw(noise, grid)
    assert mask.removed.view(-1, *grid).tolist() == [published(own, grid, ratios) for own in noise]
    assert rule.typical(grid) == (seen, 512 - seen)
    assert mask.keep.shape == (50, seen)
    assert (mask.keep.diff(dim=1) > 0).all(), "in the order of the grid"
    assert (mask.hide.diff(dim=1) > 0).all()


def test_axes_without_a_share_are_kept_whole_in_a_grid_of_any_rank():
    mask = AxisMask((0.5,)).draw(torch.tensor([[0.3, 0.1, 0.2, 0.9]]), (4, 1, 2))
    assert mask.removed.view(4, 2).tolist() == [[True] * 2, [False] * 2, [False] * 2, [True] * 2]
    second = AxisMask((0.0, 0.5)).draw(torch.tensor([[0.3, 0.1, 0.9, 0.8]]), (2, 2))
    assert second.keep.tolist() == [[1, 3]]

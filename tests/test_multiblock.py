"""The masks of I-JEPA against lightly's collator, fed with the same random numbers, and by distribution."""

from collections.abc import Iterator
from unittest.mock import patch

import pytest
import torch
from lightly.data.ijepa_collate import IJEPAMaskCollator
from torch import Tensor

from selfsup.masks import IndexMask
from selfsup.multiblock import COMPARED, MultiBlockMask

GRID = (14, 14)
RULE = MultiBlockMask()
PUBLISHED = {"enc_mask_scale": (0.85, 1.0), "pred_mask_scale": (0.15, 0.2), "aspect_ratio": (0.75, 1.5)}


def collated(sizes: list[float], corners: Tensor | None, samples: int) -> tuple[Tensor, Tensor]:
    """Return lightly's masks, (n, K) and (n, 4, M). corners: (n, 10), in place of what it would draw."""
    collator = IJEPAMaskCollator((224, 224), 16, **PUBLISHED, nenc=1, npred=4, min_keep=10)
    shared, own = iter(sizes), iter([] if corners is None else corners.flatten().tolist())
    randint = torch.randint

    def drawn(low: int, high: int, size: tuple[int, ...]) -> Tensor:
        return randint(low, high, size) if corners is None else torch.tensor([int(next(own) * (high - low))])

    with patch("torch.rand", lambda *_, **__: torch.tensor(next(shared))), patch("torch.randint", drawn):
        _, [seen], targets = collator([0] * samples)
    return seen, torch.stack(targets, dim=1)


@pytest.fixture(scope="module")
def noise() -> Tensor:
    torch.manual_seed(0)
    noise = torch.rand(16, RULE.num_draws(GRID), dtype=torch.float64)
    noise[:, : RULE.num_shared(GRID)] = noise[0, : RULE.num_shared(GRID)].clone()
    return noise


def test_blocks_are_lightlys_from_the_same_numbers(noise: Tensor) -> None:
    sizes, shared = noise[0, :2].tolist(), RULE.num_shared(GRID)
    mask = RULE.draw(noise, GRID)
    least, _ = collated(sizes, noise[0, 2:shared].view(COMPARED, 10), COMPARED)
    assert mask.keep.shape[1] == least.shape[1]  # the smallest of the masks that are compared
    for own, keep, targets in zip(noise[:, shared:], mask.keep, mask.targets, strict=True):
        seen, blocks = collated(sizes, own[None], 1)
        assert blocks[0].equal(targets)
        assert seen[0, : len(keep)].equal(keep)


def test_a_mask_is_a_function_of_its_own_numbers_and_the_steps(noise: Tensor) -> None:
    whole = RULE.draw(noise, GRID)
    for rows in (slice(0, 3), slice(3, 16)):
        for part, expected in zip(RULE.draw(noise[rows], GRID), whole, strict=True):
            assert part.equal(expected[rows])


def test_what_is_hidden_is_the_rest_and_targets_are_in_it(noise: Tensor) -> None:
    mask = RULE.draw(noise, GRID)
    assert torch.cat([mask.keep, mask.hide], dim=1).sort(dim=1).values.equal(torch.arange(196).expand(16, -1))
    assert all(mask.removed.gather(1, block).all() for block in mask.targets.unbind(1))


def steps(number: int) -> Iterator[IndexMask]:
    for _ in range(number):
        noise = torch.rand(1, RULE.num_draws(GRID)).expand(8, -1).clone()
        noise[:, RULE.num_shared(GRID) :] = torch.rand(8, 10)
        yield RULE.draw(noise, GRID)


def size(blocks: Tensor) -> float:
    return blocks.shape[2]


def overlap(blocks: Tensor) -> float:
    """(n, 4, M) -> the share of the 4 M tokens of a sample that are another block's, too"""
    covered = torch.zeros(len(blocks), 196).scatter_(1, blocks.flatten(1), 1.0).sum(dim=1).mean()
    return 1 - covered.item() / blocks[0].numel()


def test_sizes_overlaps_and_places_are_distributed_as_lightlys() -> None:
    torch.manual_seed(0)
    ours = list(steps(60))
    theirs = [collated(torch.rand(2).tolist(), None, 8) for _ in range(60)]
    drawn = [mask.targets for mask in ours], [blocks for _, blocks in theirs]
    for measure in (size, overlap):
        one, two = (torch.tensor([float(measure(blocks)) for blocks in side]) for side in drawn)
        assert abs(one.mean() - two.mean()) < 4 * (one.var() / 60 + two.var() / 60).sqrt()
    shares = [torch.zeros(196), torch.zeros(196)]
    for mask, (_, blocks) in zip(ours, theirs, strict=True):
        for share, numbers in zip(shares, (mask.targets, blocks), strict=True):
            share += torch.bincount(numbers.flatten(), minlength=196) / numbers.numel()
    for axis in (0, 1):
        one, two = (share.view(GRID).sum(axis) / 60 for share in shares)
        assert (one - two).abs().max() < 0.012  # of 1/14 and more in the middle; the last row and column have none
        assert one[-1] == two[-1] == 0


def test_a_sample_that_would_see_too_little_takes_the_largest_mask() -> None:
    """All masks that are compared have their targets in one corner, a sample has them apart: it would see the least."""
    noise = torch.zeros(2, RULE.num_draws(GRID))
    noise[1, RULE.num_shared(GRID) :] = torch.tensor([0, 0, 0, 0.99, 0.99, 0, 0.99, 0.99, 0, 0])
    mask = RULE.draw(noise, GRID)
    assert mask.keep[1].equal(mask.keep[0])
    assert mask.targets[1].equal(mask.targets[0])


def test_typical_and_blank_masks_have_the_sizes_of_drawn_ones() -> None:
    torch.manual_seed(0)
    seen, number = RULE.typical(GRID)
    drawn = list(steps(40))
    assert seen == pytest.approx(sum(mask.keep.shape[1] for mask in drawn) / 40, abs=4)
    assert number == pytest.approx(sum(mask.targets[0].numel() for mask in drawn) / 40, abs=4)
    blank = RULE.blank(3, GRID, "cpu")
    assert blank.keep.shape == (3, seen)
    assert blank.targets.shape == (3, 4, number // 4)
    assert blank.removed.sum(dim=1).tolist() == [196 - seen] * 3


def test_a_grid_without_room_is_refused() -> None:
    rule = MultiBlockMask(scale=(0.9, 0.9), aspect=(1.0, 1.0))
    with pytest.raises(AssertionError, match=r"leave nothing of a grid of \(4, 4\)"):
        rule.draw(torch.zeros(1, rule.num_draws((4, 4))), (4, 4))

"""Masks of MaskFeat's clips against its code's rule, cube by cube, and rectangles of all frames."""

import math

import numpy as np
import torch
from numpy.typing import NDArray

from selfsup.cubemask import CubeMask
from selfsup.masks import FilledBlockMask

GRID = 8, 7, 7  # on which the authors draw masks of 16 frames of 224 pixels


def cubes(draws: NDArray[np.float64], goal: int) -> NDArray[np.bool_]:
    """(tries, 6) -> GRID: time, area, aspect and corner of each cube; one that hides too much is passed over."""
    mask = np.zeros(GRID, bool)
    frames, rows, columns = GRID
    for time, area, aspect, *corner in draws:
        tokens, ratio = 9 + area * (49 - 9), math.exp(math.log(0.3) + aspect * (math.log(1 / 0.3) - math.log(0.3)))
        sides = 1 + int(time * frames), round(math.sqrt(tokens * ratio)), round(math.sqrt(tokens / ratio))
        if sides[1] < rows and sides[2] < columns:
            first = [int(place * (size - side + 1)) for place, size, side in zip(corner, GRID, sides, strict=True)]
            cube = mask[tuple(slice(start, start + side) for start, side in zip(first, sides, strict=True))]
            if 0 < (~cube).sum() <= goal - mask.sum():
                cube[:] = True
    return mask


def test_cubes_are_hidden_as_by_the_authors_rule_and_single_tokens_up_to_the_ratio() -> None:
    torch.manual_seed(0)
    rule = CubeMask(0.4)
    draws = torch.rand(60, rule.num_draws(GRID))
    mask = rule.draw(draws, GRID)
    assert rule.typical(GRID) == (236, 156)
    assert (mask.keep.shape, mask.hide.shape) == ((60, 236), (60, 156))
    expected = np.stack([cubes(one, 156) for one in draws[:, :192].view(60, 32, 6).double().numpy()])
    hidden = mask.removed.view(60, *GRID).numpy()
    assert not (expected & ~hidden).any()
    assert expected.sum() > 0.9 * hidden.sum(), "most tokens are in cubes"
    assert rule.draw(draws[7:8], GRID).hide.equal(mask.hide[7:8])  # of its own draws alone


def test_some_frames_see_what_others_do_not() -> None:
    torch.manual_seed(0)
    hidden = CubeMask(0.4).draw(torch.rand(50, CubeMask(0.4).num_draws(GRID)), GRID).removed.view(50, *GRID)
    assert (hidden != hidden[:, :1]).flatten(1).any(dim=1).all()
    assert (hidden.double().mean((0, 2, 3)) - 0.4).abs().max() < 0.2


def test_rectangles_of_clips_are_those_of_an_image_in_every_frame() -> None:
    torch.manual_seed(0)
    rule = FilledBlockMask(0.4)
    draws = torch.rand(5, rule.num_draws(GRID))
    assert rule.num_draws(GRID) == rule.num_draws(GRID[1:])
    mask = rule.draw(draws, GRID)
    assert (mask.keep.shape, mask.hide.shape) == ((5, 8 * 30), (5, 8 * 19))
    assert rule.typical(GRID) == (8 * 30, 8 * 19)
    expected = rule.draw(draws, GRID[1:]).removed
    assert mask.removed.view(5, 8, 49).equal(expected[:, None].expand(-1, 8, -1))

"""Masks of clips against VideoMAE's and V-JEPA's published rules: the same in all frames, of exact sizes."""

import pytest
import torch
from torch import Tensor

from selfsup.masks import RandomMask
from selfsup.tubemask import TubeBlocksMask, TubeMask

GRID = 8, 14, 14  # of 16 frames of 224 pixels, tubelets of 2 x 16 x 16


@pytest.mark.parametrize(("ratio", "places"), [(0.9, 176), (0.75, 147), (0.5, 98)])
def test_the_mask_of_videomae_hides_the_same_places_in_every_frame(ratio: float, places: int) -> None:
    """int(ratio * 196) of 196 places, as its TubeMaskingGenerator: 176 at 0.9, and eight times as many of a clip."""
    mask = TubeMask(ratio).draw(torch.rand(5, 196), GRID)
    assert (mask.keep.shape, mask.hide.shape) == ((5, 8 * (196 - places)), (5, 8 * places))
    frames = mask.removed.view(5, 8, 196)
    assert (frames == frames[:, :1]).all()
    assert (frames.sum(dim=2) == places).all()
    assert TubeMask(ratio).typical(GRID) == (8 * (196 - places), 8 * places)
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


def step(rule: TubeBlocksMask, samples: int) -> Tensor:
    """-> (samples, draws): random numbers of a step, of which all samples share the first ones"""
    noise, shared = torch.rand(samples, rule.num_draws(GRID)), rule.num_shared(GRID)
    noise[:, :shared] = noise[:1, :shared].clone()
    return noise


@pytest.mark.parametrize(("blocks", "share"), [(8, 0.15), (2, 0.7)])
def test_blocks_of_v_jepa_hide_the_places_that_its_rule_says(blocks: int, share: float) -> None:
    """multiblock3d.py, rectangle by rectangle: of each sample the first tokens, as many as all of a step's masks have.

    A step draws 128 masks for that; a sample that has fewer takes the first that has not.
    """
    rule, samples = TubeBlocksMask(blocks, (share, share)), 40
    noise = step(rule, samples)
    ratio, size = 0.75 + 0.75 * float(noise[0, 1]), int(share * 196)
    height, width = (min(14, round((size * one) ** 0.5)) for one in (ratio, 1 / ratio))
    shared = noise[0, 2 : rule.num_shared(GRID)].view(128, blocks, 2)
    frames = torch.zeros(128 + samples, 14, 14, dtype=torch.bool)
    every = torch.cat([shared, noise[:, rule.num_shared(GRID) :].view(-1, blocks, 2)])
    for frame, corners in zip(frames, every, strict=True):
        for down, right in corners.tolist():
            top, left = int(down * (15 - height)), int(right * (15 - width))
            frame[top : top + height, left : left + width] = True
    counts = frames.flatten(1).sum(1).tolist()
    fewest, most = min(counts[:128]), max(count for count in counts[:128] if count < 196)
    seen, asked = 8 * (196 - most), 8 * fewest
    usual = next(frame for frame, count in zip(frames, counts, strict=True) if count <= most)
    mask, replaced = rule.draw(noise, GRID), 0
    assert (mask.keep.shape, mask.targets.shape) == ((samples, seen), (samples, 1, asked))
    for number in range(samples):
        fits = fewest <= counts[128 + number] <= most
        replaced += not fits
        whole = (frames[128 + number] if fits else usual).flatten().repeat(8)
        assert mask.keep[number].tolist() == whole.logical_not().nonzero()[:seen, 0].tolist()
        assert mask.targets[number, 0].tolist() == whole.nonzero()[:asked, 0].tolist()
        assert mask.removed[number].sum() == 1568 - seen
    assert replaced < samples


def test_places_are_hidden_alike_to_the_edges() -> None:
    """One block of a place of 6 x 6: anywhere with the same probability, in the last row and column, too."""
    torch.manual_seed(0)
    rule = TubeBlocksMask(1, (1 / 36, 1 / 36), (1.0, 1.0))
    noise = torch.rand(7200, rule.num_draws((2, 6, 6)))
    hidden = rule.draw(noise, (2, 6, 6)).removed.view(7200, 2, 36).double()
    assert (hidden[:, 0] == hidden[:, 1]).all()
    assert (hidden[:, 0].mean(0) - 1 / 36).abs().max() < 4 * (35 / 36**2 / 7200) ** 0.5


def test_a_sample_is_a_function_of_its_own_numbers_and_the_steps() -> None:
    rule = TubeBlocksMask(2, (0.3, 0.5))
    noise = torch.rand(5, rule.num_draws((2, 6, 6)))
    noise[:, : rule.num_shared((2, 6, 6))] = noise[0, : rule.num_shared((2, 6, 6))].clone()
    whole = rule.draw(noise, (2, 6, 6))
    for part, expected in zip(rule.draw(noise[3:], (2, 6, 6)), whole, strict=True):
        assert part.equal(expected[3:])
    blank = rule.blank(3, (2, 6, 6), "cpu")
    assert (blank.keep.shape[1], blank.targets.shape[2]) == rule.typical((2, 6, 6))

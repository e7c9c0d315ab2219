"""The masks of MAGE against SciPy's truncated normal distribution, its code's cutoffs, and by distribution."""

import math

import pytest
import torch
from scipy import stats
from scipy.stats import truncnorm

from selfsup.variablemask import VariableMask

GRID, RULE = (14, 14), VariableMask(0.5, 0.55, 0.25)
THEIRS = truncnorm((0.5 - 0.55) / 0.25, (1 - 0.55) / 0.25, loc=0.55, scale=0.25)


def test_shares_are_quantiles_of_scipys_distribution() -> None:
    draws = [0.0, 1e-6, 0.1, 0.5, 0.9, 1 - 2**-24]
    assert [RULE.share(draw) for draw in draws] == pytest.approx(THEIRS.ppf(draws).tolist(), rel=1e-9)
    assert RULE.typical(GRID) == (98, math.ceil(196 * THEIRS.mean()))
    narrow = VariableMask(0.5, 0.6, 1e-4)  # all of it is between the bounds, and nothing of the next below its own
    assert narrow.share(0.5) == pytest.approx(0.6)
    assert VariableMask(0.9, 0.5, 0.01).share(0.5) == 0.9


def test_tokens_are_left_out_and_masked_by_the_cutoffs_of_the_code() -> None:
    noise = torch.rand(8, RULE.num_draws(GRID))
    noise[:, 0] = 0.3
    mask, masked = RULE.draw(noise, GRID), math.ceil(196 * THEIRS.ppf(noise[0, 0].item()))
    ranks = noise[:, 1:].sort(dim=1).values
    left_out, hidden = (noise[:, 1:] <= ranks[:, number - 1 : number] for number in (98, masked))
    assert mask.removed.equal(left_out)
    assert torch.zeros_like(hidden).scatter(1, mask.targets[:, 0], True).equal(hidden)
    assert mask.targets.shape == (8, 1, masked)
    assert mask.order[:, 196 - masked :].equal(mask.targets[:, 0])


def test_steps_have_shares_of_the_published_distribution_and_tokens_are_alike() -> None:
    draws = torch.rand(400, 1 + 196)
    masks = [RULE.draw(row[None], GRID) for row in draws]
    shares = [mask.targets.shape[2] / 196 for mask in masks]
    assert stats.kstest(shares, THEIRS.cdf).pvalue > 0.01
    often = torch.stack([mask.removed[0] for mask in masks]).double().mean(dim=0)
    assert (often - 0.5).abs().max() < 4.5 * (0.25 / 400) ** 0.5


def test_a_sample_is_masked_by_its_own_numbers_and_the_steps() -> None:
    noise = torch.rand(4, RULE.num_draws(GRID))
    noise[:, 0] = noise[0, 0].clone()
    whole, part = RULE.draw(noise, GRID), RULE.draw(noise[2:], GRID)
    assert all(own.equal(row[2:]) for own, row in zip(part, whole, strict=True))


def test_a_blank_mask_is_of_typical_size() -> None:
    mask, (seen, masked) = RULE.blank(3, GRID, "meta"), RULE.typical(GRID)
    assert mask.keep.shape == (3, seen)
    assert mask.targets.shape == (3, 1, masked)

"""Noise of a hash: word by word as integers of Python have it, and distributed as it says, by SciPy's tests."""

import numpy as np
import torch
from scipy import stats

from selfsup.parts.noise import gaussian, gumbel, uniform


def mixed(word: int) -> int:
    word = (word ^ (word >> 16)) * 0x85EBCA6B % 2**32
    word = (word ^ (word >> 13)) * 0xC2B2AE35 % 2**32
    return word ^ (word >> 16)


def test_it_is_the_hash_of_draws_and_numbers() -> None:
    draws = torch.tensor([[0.25, 0.7], [1 - 2**-24, 0.0]])
    found = uniform(draws, (2, 3), stream=1)
    for sample, (first, second) in enumerate((draws.double() * 2**24).long().tolist()):
        for number in range(6):
            inner = mixed(((number + 6) * 0x9E3779B9 + first) % 2**32) ^ mixed(second + 2**24)
            assert found[sample].flatten()[number].item() == (mixed(inner) >> 8) / 2**24


def test_it_is_uniform_normal_and_gumbel() -> None:
    draws = torch.rand(20, 2)
    assert stats.kstest(uniform(draws, (3, 20, 20)).flatten().numpy(), "uniform").pvalue > 0.01
    assert stats.kstest(gaussian(draws, (3, 20, 20)).flatten().numpy(), "norm").pvalue > 0.01
    assert stats.kstest(gumbel(draws, (3, 20, 20)).flatten().numpy(), "gumbel_r").pvalue > 0.01


def test_values_do_not_depend_on_each_other() -> None:
    """Neither neighbors, nor samples, nor streams, nor samples whose draws are nearly the same."""
    near = torch.tensor([[0.5, 0.5], [0.5 + 2**-24, 0.5], [0.5, 0.5 + 2**-24], [0.5, 0.25]])
    one, two = (uniform(near, (4000,), stream).numpy() for stream in (0, 1))
    rows = np.concatenate([one, two, one[:, [*range(1, 4000), 0]], one[:, [*range(20, 4000), *range(20)]]])
    off = np.corrcoef(rows)[np.triu_indices(len(rows), 1)]
    assert np.abs(off).max() < 4.5 / 4000**0.5


def test_pairs_fill_the_square() -> None:
    values = uniform(torch.rand(4, 2), (20000,)).numpy()
    cells = np.stack([values[:, :-1], values[:, 1:]]).reshape(2, -1)
    counts = np.histogram2d(*cells, bins=10, range=[[0, 1], [0, 1]])[0]
    assert stats.chisquare(counts.flatten()).pvalue > 0.01


def test_noise_keeps_precision_and_place() -> None:
    assert uniform(torch.rand(2, 2, dtype=torch.float64), (3,)).dtype == torch.float64
    assert gaussian(torch.zeros(2, 2), (4, 5)).shape == (2, 4, 5)
    assert gaussian(torch.full((1, 2), 1 - 2**-24), (1000,)).isfinite().all()


def test_gumbel_noise_is_finite_for_the_least_and_the_largest_draw(monkeypatch) -> None:
    monkeypatch.setattr("selfsup.parts.noise.uniform", lambda *_: torch.tensor([0.0, 1 - 2**-24]))
    assert gumbel(torch.zeros(1, 2), (2,)).isfinite().all()

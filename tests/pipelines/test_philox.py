"""Counted random numbers against Random123's known answers and against chance."""

from collections import Counter

import numpy as np
from scipy import stats

from selfsup.pipelines.data.philox import CROP, PHOTO, permute, philox, uniform


def words(*values: int) -> tuple[np.ndarray, ...]:
    return tuple(np.array([value], dtype=np.uint32) for value in values)


def test_philox_gives_the_known_answers_of_random123() -> None:
    ones = 0xFFFFFFFF
    pi = (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344), (0xA4093822, 0x299F31D0)
    cases = [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((ones,) * 4, (ones, ones), (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (*pi, (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1)),
    ]
    for counter, key, answer in cases:
        assert tuple(int(word[0]) for word in philox(words(*counter), words(*key))) == answer


def test_a_draw_does_not_depend_on_its_neighbors() -> None:
    epoch, index = np.repeat([0, 3], 50), np.tile(np.arange(50), 2) * 2**31
    whole = uniform(seed=7, epoch=epoch, index=index, purpose=CROP, draws=9)
    alone = uniform(seed=7, epoch=epoch[60:61], index=index[60:61], purpose=CROP, draws=9)
    assert (whole[60] == alone[0]).all()
    assert len(np.unique(whole)) > 0.99 * whole.size
    other = uniform(seed=7, epoch=epoch, index=index, purpose=PHOTO, draws=9)
    assert (whole != other).mean() > 0.99


def test_draws_are_uniform() -> None:
    index = np.arange(20_000)
    draws = uniform(seed=1, epoch=np.zeros_like(index), index=index, purpose=CROP, draws=3)
    assert draws.min() >= 0
    assert draws.max() < 1
    assert all(stats.kstest(column, "uniform").pvalue > 0.001 for column in draws.T)


def test_permute_is_a_permutation_at_every_size() -> None:
    for size in [1, 2, 3, 5, 16, 17, 1000, 4097]:
        assert sorted(permute(np.arange(size), size, seed=3, epoch=1)) == list(range(size))


def test_small_permutations_are_equally_likely() -> None:
    seen = Counter(tuple(permute(np.arange(4), 4, seed=5, epoch=epoch)) for epoch in range(4800))
    assert len(seen) == 24
    assert stats.chisquare(list(seen.values())).pvalue > 0.001


def test_a_billion_positions_need_no_list() -> None:
    some = permute(np.arange(10**9 - 1000, 10**9), 10**9, seed=0, epoch=0)
    assert len(set(some)) == 1000
    assert stats.kstest(some / 1e9, "uniform").pvalue > 0.001

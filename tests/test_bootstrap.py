"""The bootstrap over images, against SciPy's and against all draws of a few images."""

import itertools

import numpy as np
import pytest
from scipy import stats

from selfsup.sweeps.report.bootstrap import difference


def test_it_is_scipy_s_paired_bootstrap() -> None:
    """With 400 images two Monte Carlo errors of the ends are below a tenth of a standard error of 2 points."""
    draw = np.random.default_rng(0)
    hard = draw.random(400)
    one, other = draw.random((3, 400)) < hard, draw.random((2, 400)) < 0.9 * hard
    ours = difference(one, other)
    theirs = stats.bootstrap(
        (one.mean(0), other.mean(0)),
        lambda a, b, axis: 100 * (a.mean(axis) - b.mean(axis)),
        paired=True,
        method="percentile",
        n_resamples=20_000,
        rng=draw,
    ).confidence_interval
    assert ours == pytest.approx((theirs.low, theirs.high), abs=0.2)
    assert ours == pytest.approx(tuple(-end for end in reversed(difference(other, one))), abs=0.2)


def test_of_five_images_it_is_the_quantile_of_all_3125_draws() -> None:
    one, other = np.array([[1, 1, 1, 0, 1]], bool), np.array([[0, 1, 0, 0, 1], [0, 0, 1, 0, 1]], bool)
    each = one.mean(0) - other.mean(0)
    means = [100 * each[list(images)].mean() for images in itertools.product(range(5), repeat=5)]
    assert difference(one, other) == pytest.approx(tuple(np.quantile(means, [0.025, 0.975])), abs=1e-9)


def test_arms_that_have_the_same_images_right_differ_by_nothing_whatever_the_images() -> None:
    hits = np.random.default_rng(0).random((2, 50)) < 0.7
    assert difference(hits, hits) == (0, 0)
    assert difference(hits, hits) == difference(hits, hits)


def test_memory_does_not_grow_with_images() -> None:
    """A million images and three seeds: seven values."""
    draw = np.random.default_rng(0)
    low, high = difference(draw.random((3, 10**6)) < 0.7, draw.random((3, 10**6)) < 0.6)
    assert 9.8 < low < high < 10.2
    assert high - low == pytest.approx(2 * 1.96 * 100 * np.sqrt((0.21 + 0.24) / 3 / 10**6), rel=0.05)

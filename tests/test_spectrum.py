"""Label-free measures against numbers derived by hand and the papers' formulas in NumPy."""

import math

import numpy as np
import pytest
from pydantic import ValidationError
from scipy.spatial.distance import pdist

from selfsup.errors import DataError
from selfsup.evals import spectrum
from selfsup.evals.spectrum import Spectrum
from selfsup.evaluator import Features, numbers

SAMPLES = 400


def run(value: np.ndarray, **hyper: float) -> dict[str, float]:
    none, value = np.full(len(value), -1), value.astype(np.float32)
    features = Features(value, none, value, none, classes=0)
    return numbers(dict(Spectrum(Spectrum.Hyper.model_validate(hyper)).run(features, seed=0)))


def of_spectrum(variance: np.ndarray) -> np.ndarray:
    """(D,) -> (SAMPLES, D): features of mean zero whose covariance has these eigenvalues, along turned axes."""
    draw = np.random.default_rng(0)
    noise = draw.normal(size=(SAMPLES, len(variance)))
    white = np.sqrt(SAMPLES) * np.linalg.qr(noise - noise.mean(0))[0]
    turn = np.linalg.qr(draw.normal(size=(len(variance), len(variance))))[0]
    turned: np.ndarray = white * np.sqrt(variance) @ turn
    return turned


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0])
def test_alpha_is_the_exponent_of_the_spectrum(alpha: float) -> None:
    value = of_spectrum(np.arange(1, 121) ** -alpha) + 3  # a mean has no part in a covariance
    assert run(value)["alpha"] == pytest.approx(alpha, abs=1e-3)


def test_alpha_is_the_authors_weighted_fit_where_the_spectrum_is_no_power_law() -> None:
    variance = np.exp(-np.arange(120) / 20)
    rank = np.arange(4, 101)
    x = np.stack([-np.log(rank), np.ones(len(rank))], 1)
    expected = np.linalg.solve(x.T @ (x / rank[:, None]), x.T @ (np.log(variance[3:100]) / rank))[0]
    assert run(of_spectrum(variance))["alpha"] == pytest.approx(expected, abs=1e-3)


def test_alpha_is_fitted_to_the_ranks_that_are_asked_for_and_exist() -> None:
    variance = np.concatenate([np.ones(10), np.arange(11, 31) ** -3.0])
    value = of_spectrum(variance)
    assert run(value, first_rank=1, last_rank=10)["alpha"] == pytest.approx(0, abs=1e-3)
    assert run(value, first_rank=11)["alpha"] == pytest.approx(3, abs=1e-3)
    assert "alpha" not in run(of_spectrum(np.ones(4)))
    assert "alpha" not in run(np.ones((5, 16)))


def test_rank_is_that_of_the_entropy_of_singular_values() -> None:
    assert run(of_spectrum(np.ones(16)))["rankme"] == pytest.approx(16, abs=1e-3)
    share = np.array([4, 2, 1, 1]) / 8  # singular values; the entropy is (1/2 + 1/2 + 3/8 + 3/8) log 2
    assert run(of_spectrum(share**2))["rankme"] == pytest.approx(2**1.75, abs=1e-3)


def test_deviation_is_one_where_features_fill_the_sphere_and_zero_where_they_are_one() -> None:
    corners = np.concatenate([np.eye(6), -np.eye(6)])  # each channel: variance 1/6, and √6 times its root
    assert run(7 * corners)["feature_std"] == pytest.approx(1)
    assert run(np.ones((5, 8)))["feature_std"] == pytest.approx(0, abs=1e-6)


def test_uniformity_is_the_one_of_distances_counted_by_hand() -> None:
    """Among the six pairs of a square's corners on the circle four have a squared distance of 2, and two of 4."""
    square = np.array([[1, 0], [0, 2], [-3, 0], [0, -1]])
    assert run(square)["uniformity"] == pytest.approx(math.log((4 * math.exp(-4) + 2 * math.exp(-8)) / 6), abs=1e-5)
    assert run(square, t=1.0)["uniformity"] == pytest.approx(math.log((4 * math.exp(-2) + 2 * math.exp(-4)) / 6))
    assert run(np.array([[1, 0], [-1, 0]]), t=20.0)["uniformity"] == pytest.approx(-80)
    assert run(np.ones((5, 8)))["uniformity"] == pytest.approx(0, abs=1e-5)


def test_uniformity_is_the_paper_s_formula() -> None:
    value = np.random.default_rng(0).normal(size=(300, 16))
    unit = value / np.linalg.norm(value, axis=1, keepdims=True)
    assert run(value)["uniformity"] == pytest.approx(np.log(np.exp(-2 * pdist(unit, "sqeuclidean")).mean()), abs=1e-5)


def test_parts_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    value = np.random.default_rng(0).normal(size=(300, 16)) + 1
    whole = run(value)
    monkeypatch.setattr(spectrum, "PAIRS", 300 * 7)
    assert run(value) == pytest.approx(whole, abs=1e-5)


def test_one_sample_has_no_distance() -> None:
    with pytest.raises(DataError, match="between 2 or more validation samples"):
        run(np.ones((1, 8)))


def test_ranks_that_make_no_line_are_refused() -> None:
    with pytest.raises(ValidationError, match="two ranks make a power law"):
        Spectrum.Hyper(first_rank=10, last_rank=10)
    with pytest.raises(ValidationError, match="two ranks make a power law"):
        Spectrum.Hyper(first_rank=100)

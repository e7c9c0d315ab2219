"""LiDAR against scikit-learn's discriminant analysis, and alignment against its definition written out."""

from itertools import combinations

import numpy as np
import pytest
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from selfsup.errors import DataError
from selfsup.evals.invariance import Invariance
from selfsup.evaluator import Features, numbers
from selfsup.feature_choice import FeatureChoice


def features(views: np.ndarray) -> Features:
    """Return features of K samples without labels, (V, K, D) of them of views."""
    number, label = views.shape[1], np.full(views.shape[1], -1)
    return Features(views.mean(0), label, np.ones((number, views.shape[2]), np.float32), label, 0, views=views)


def run(views: np.ndarray, **hyper: float) -> dict[str, float]:
    return numbers(dict(Invariance(Invariance.Hyper.model_validate(hyper)).run(features(views), seed=0)))


def drawn(views: int, samples: int, dim: int, spread: float = 0.5, seed: int = 0) -> np.ndarray:
    draw = np.random.default_rng(seed)
    scale = np.linspace(0.2, 2, dim)
    return scale * draw.normal(size=(1, samples, dim)) + spread * draw.normal(size=(views, samples, dim))


@pytest.mark.parametrize("seed", range(3))
def test_lidar_is_the_entropy_of_what_discriminant_analysis_explains(seed: int) -> None:
    """Each sample is a class of six members. Shares of variance by scikit-learn, whose between is total less within."""
    views = drawn(6, 40, 12, seed=seed)
    analysis = LinearDiscriminantAnalysis(solver="eigen").fit(views.reshape(-1, 12), np.tile(np.arange(40), 6))
    share = analysis.explained_variance_ratio_
    expected = np.exp(-(share * np.log(share)).sum())
    assert run(views, delta=1e-12)["lidar"] == pytest.approx(expected, rel=1e-4)  # 12 shares have 1e-7 more each


def test_lidar_of_axes_that_tell_samples_apart_equally_well_is_their_number() -> None:
    """Four axes: samples at ± 1 on each of the first three, of which every view is 1e-3 off, and at 0 on the fourth."""
    corners = np.array(np.meshgrid(*[[-1.0, 1.0]] * 3)).reshape(3, 8).T
    views = np.concatenate([corners, np.zeros((8, 1))], 1)[None] + 1e-3 * np.array([-1.0, 1.0])[:, None, None]
    assert run(views, delta=1.0)["lidar"] == pytest.approx(3, abs=1e-4)


def test_delta_is_all_that_a_view_of_nothing_but_the_sample_varies_by() -> None:
    """Without variance within, shares are those of the variances between: 4 and 1 of 5."""
    views = np.repeat(np.array([[2.0, 1.0], [2.0, -1.0], [-2.0, 1.0], [-2.0, -1.0]])[None], 3, axis=0)
    expected = np.exp(-(0.8 * np.log(0.8) + 0.2 * np.log(0.2)))
    assert run(views, delta=0.1)["lidar"] == pytest.approx(expected, rel=1e-5)
    assert run(views)["alignment"] == pytest.approx(0, abs=1e-12)


def test_alignment_is_the_mean_squared_distance_of_pairs_of_views() -> None:
    views = drawn(5, 20, 7)
    unit = views / np.linalg.norm(views, axis=2, keepdims=True)
    expected = np.mean([((one - other) ** 2).sum(1) for one, other in combinations(unit, 2)])
    assert run(views)["alignment"] == pytest.approx(expected, rel=1e-12)


def test_views_that_have_nothing_in_common_are_no_nearer_than_any_and_opposite_ones_are_farthest() -> None:
    noise = np.random.default_rng(0).normal(size=(10, 500, 64))
    assert run(noise)["alignment"] == pytest.approx(2, abs=0.02)  # 1 + 1 - 2 cos, and the mean cosine is 0
    one = np.ones((1, 4, 3))
    assert run(np.concatenate([one, -one]))["alignment"] == pytest.approx(4)


def test_what_it_reads_is_a_share_of_training_samples_and_several_views_of_each() -> None:
    choice = Invariance.reads_of(Invariance.Hyper(feature="cls", views=4, images=50))
    assert choice == FeatureChoice("cls", views=4, images=50)
    assert choice.whole == FeatureChoice("cls")


def test_one_sample_cannot_be_told_from_others_and_bad_features_are_no_number() -> None:
    with pytest.raises(DataError, match="samples are told from each other, and there is one with views"):
        run(drawn(3, 1, 4))
    bad = drawn(3, 5, 4)
    bad[1, 2, 3] = np.nan
    with pytest.raises(DataError, match="1 features of views are not finite"):
        dict(Invariance(Invariance.Hyper()).run(features(drawn(3, 5, 4))._replace(views=bad), seed=0))

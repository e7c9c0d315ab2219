"""Weighted kNN against scikit-learn's, and against votes counted by hand."""

from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from sklearn.datasets import load_digits
from sklearn.neighbors import KNeighborsClassifier

from selfsup.errors import SpecError
from selfsup.evals import knn
from selfsup.evals.knn import KNN
from selfsup.evaluator import Features, numbers


def digits() -> Features:
    value, label = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(value))
    value, label = value[order].astype(np.float32), label[order].astype(np.int64)
    return Features(value[:1400], label[:1400], value[1400:], label[1400:], classes=10)


def run(features: Features, **hyper: Any) -> dict[str, float]:
    return numbers(dict(KNN(KNN.Hyper.model_validate(hyper)).run(features, seed=0)))


@pytest.mark.parametrize("k", [1, 20, 200])
@pytest.mark.parametrize("temperature", [0.01, 0.07, 1.0])
def test_top1_and_top5_are_those_of_scikit_learn(k: int, temperature: float) -> None:
    features = digits()
    features = features._replace(train=features.train.astype(np.float64), val=features.val.astype(np.float64))
    reference = KNeighborsClassifier(
        k, metric="cosine", algorithm="brute", weights=lambda distance: np.exp((1 - distance) / temperature)
    )
    reference.fit(features.train, features.train_label)
    share = reference.predict_proba(features.val)
    ranked = np.argsort(-share, axis=1, kind="stable")[:, :5]
    hit = (ranked == features.val_label[:, None]) & (np.take_along_axis(share, ranked, 1) > 0)
    found = run(features, k=k, temperature=temperature)
    assert found == pytest.approx({"top1": 100 * hit[:, 0].mean(), "top5": 100 * hit.any(1).mean()}, abs=1e-9)


def angles(*degrees: float) -> np.ndarray:
    turn = np.deg2rad(degrees)
    return np.stack([np.cos(turn), np.sin(turn)], 1).astype(np.float32)


def test_one_near_neighbor_outvotes_two_far_ones_when_it_is_cold() -> None:
    """Query at 0, class 0 at 10 degrees, class 1 at 60 and -60: cosines .985, .5, .5.

    T = 1: e^.985 = 2.68 against 2 e^.5 = 3.30. T = .07: e^14.07 against 2 e^7.14.
    """
    features = Features(angles(10, 60, -60), np.array([0, 1, 1]), angles(0), np.array([0]), classes=2)
    assert run(features, k=3, temperature=1.0) == {"top1": 0.0}
    assert run(features, k=3, temperature=0.07) == {"top1": 100.0}


def test_only_the_direction_of_features_counts() -> None:
    features = digits()
    scaled = features._replace(val=features.val * np.linspace(0.1, 10, len(features.val), dtype=np.float32)[:, None])
    assert run(scaled) == pytest.approx(run(features), abs=100 / len(features.val))


def test_a_class_without_votes_is_no_guess() -> None:
    features = Features(angles(0, 1, 2, 90), np.array([5, 5, 5, 4]), angles(0, 0), np.array([0, 5]), classes=6)
    assert run(features, k=3) == {"top1": 50.0, "top5": 50.0}


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run(digits())
    monkeypatch.setattr(knn, "SIMILARITIES", 1400 * 7)
    assert run(digits()) == whole


def test_more_neighbors_than_samples_are_refused() -> None:
    features = Features(angles(0, 1), np.array([0, 1]), angles(0), np.array([0]), classes=2)
    with pytest.raises(SpecError, match=r"^k: 3 neighbors, but train has 2 labelled samples"):
        run(features, k=3)


KS, TEMPERATURES = (1, 10, 200), (0.01, 0.07, 1.0)


@pytest.mark.parametrize("seed", range(3))
def test_the_setting_is_chosen_on_a_tenth_of_train_as_by_a_loop_over_scikit_learns(seed: int) -> None:
    features = digits()
    order = torch.randperm(1400, generator=torch.Generator().manual_seed(seed)).numpy()
    held, rest = order[:140], order[140:]
    scores = {}
    for k, temperature in product(KS, TEMPERATURES):
        reference = KNeighborsClassifier(
            k, metric="cosine", algorithm="brute", weights=lambda d, t=temperature: np.exp(-d / t)
        )
        reference.fit(features.train[rest], features.train_label[rest])
        scores[k, temperature] = reference.score(features.train[held], features.train_label[held])
    found = numbers(dict(KNN(KNN.Hyper(ks=KS, temperatures=TEMPERATURES)).run(features, seed=seed)))
    assert (found["k"], found["temperature"]) == max(scores, key=scores.__getitem__)
    alone = run(features, k=int(found["k"]), temperature=found["temperature"])
    assert found == alone | {name: found[name] for name in ("k", "temperature")}


def test_one_setting_is_not_chosen_and_several_are_named() -> None:
    assert list(KNN.yields(KNN.Hyper())) == list(KNN.yields(KNN.Hyper(ks=(5,)))) == ["top1", "top5"]
    assert list(KNN.yields(KNN.Hyper(ks=(5, 10)))) == ["top1", "top5", "k", "temperature"]
    assert run(digits(), ks=(5,)) == run(digits(), k=5)


def test_more_neighbors_than_nine_tenths_are_refused() -> None:
    few = KNN.lacks(KNN.Hyper(ks=(1, 19)), 20, 2)
    assert few == ("ks", "19 neighbors, but nine tenths of train have 18 labelled samples; set a smaller k")
    assert KNN.lacks(KNN.Hyper(ks=(1, 18)), 20, 2) is None
    lonely = KNN.lacks(KNN.Hyper(ks=(1, 2)), 1, 2)
    assert lonely is not None
    assert "needs 2 or more, not 1" in lonely.message


@pytest.mark.parametrize("wrong", [{"ks": (5, 0)}, {"temperatures": (0.1, -1.0)}])
def test_settings_that_are_none_are_refused(wrong: dict[str, tuple[float, ...]]) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        KNN.Hyper.model_validate(wrong)

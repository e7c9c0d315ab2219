"""Low-shot logistic regression against scikit-learn's on the same splits, and which splits are drawn."""

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from selfsup.errors import SpecError
from selfsup.evals.lowshot import LowShot, centered, draw
from selfsup.evaluator import Features, numbers


def digits() -> Features:
    value, label = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(value))
    value, label = value[order].astype(np.float32), label[order].astype(np.int64)
    return Features(value[:1200], label[:1200], value[1200:], label[1200:], classes=10)


def run(features: Features, seed: int = 0, **hyper: object) -> dict[str, float]:
    return numbers(dict(LowShot(LowShot.Hyper.model_validate(hyper)).run(features, seed=seed)))


def unit(value: np.ndarray) -> np.ndarray:
    """Each row less its mean, then of unit length, in NumPy."""
    rest = value.astype(np.float64) - value.mean(1, keepdims=True, dtype=np.float64)
    return rest / np.linalg.norm(rest, axis=1, keepdims=True)


@pytest.mark.parametrize(
    ("name", "hyper", "number"),
    [
        ("shot2", {"per_class": (2,), "shares": ()}, 2),
        ("shot5", {"per_class": (5,), "shares": (), "decay": 1.0}, 5),
        ("percent10", {"per_class": (), "shares": (0.1,)}, 12),
    ],
)
def test_accuracy_is_that_of_scikit_learn_on_the_same_splits(name: str, hyper: dict[str, object], number: int) -> None:
    features = digits()
    reference = LogisticRegression(
        C=1 / float(hyper.get("decay", 0.0025)), fit_intercept=False, tol=1e-9, max_iter=9999
    )
    expected = []
    for rows in draw(features.train_label, number, 3, seed=4):
        reference.fit(unit(features.train[rows]), features.train_label[rows])
        expected.append(reference.score(unit(features.val), features.val_label))
    assert run(features, seed=4, **hyper) == pytest.approx({name: 100 * np.mean(expected)}, abs=0.1)
    assert 60 < 100 * np.mean(expected) < 100


def test_features_are_centered_each_by_itself() -> None:
    value = digits().val
    np.testing.assert_allclose(centered(torch.as_tensor(value)).numpy(), unit(value), atol=1e-12)


@pytest.mark.parametrize(("number", "splits"), [(1, 3), (5, 3), (12, 8)])
def test_a_split_has_so_many_of_each_class_and_shares_none_with_another(number: int, splits: int) -> None:
    label = digits().train_label
    rows = draw(label, number, splits, seed=0)
    assert [np.bincount(label[part]).tolist() for part in rows] == [[number] * 10] * splits
    assert len(np.unique(np.concatenate(rows))) == 10 * number * splits
    for first, second in zip(rows, draw(label, number, splits, seed=0), strict=True):
        np.testing.assert_array_equal(first, second)
    assert not np.array_equal(rows[0], draw(label, number, splits, seed=1)[0])


def test_a_small_class_repeats_its_samples_but_not_in_a_split() -> None:
    label = np.array([0, 2, 2, 2, 2, 2, 2, 0, 0])
    rows = draw(label, 2, 3, seed=0)
    assert [np.bincount(label[part]).tolist() for part in rows] == [[2, 0, 2]] * 3
    assert all(len(np.unique(part)) == 4 for part in rows)
    small = [set(part[label[part] == 0]) for part in rows]
    assert set.union(*small) == {0, 7, 8}
    assert [len(part) for part in draw(np.array([0, 1, 1, 1]), 2, 1, seed=0)] == [3]


def test_separable_classes_are_told_by_one_sample_and_noise_by_chance() -> None:
    label = np.arange(1000) % 4
    noise = np.random.default_rng(0).normal(size=(1000, 8)).astype(np.float32)
    apart = 50 * np.eye(4, 8, dtype=np.float32)[label] + noise
    for value, low, high in ((apart, 100, 100), (noise, 18, 32)):  # three deviations of 500 guesses at 1 of 4 are 5.8
        features = Features(value[:500], label[:500], value[500:], label[500:], classes=4)
        assert all(low <= score <= high for score in run(features).values())


def test_knobs_say_which_metrics_there_are() -> None:
    hyper = LowShot.Hyper(per_class=(1,), shares=(0.1,))
    assert list(LowShot.yields(hyper)) == list(run(digits(), per_class=(1,), shares=(0.1,))) == ["shot1", "percent10"]
    assert LowShot.yields(LowShot.Hyper()) == LowShot.metrics


@pytest.mark.parametrize(
    ("hyper", "labelled", "knob", "message"),
    [
        (
            {"per_class": (1, 5), "shares": ()},
            149,
            "per_class",
            "3 splits of shot5 take 150 samples, but train has 149",
        ),
        ({"shares": (0.01,)}, 400, "shares", "percent1 is less than one sample of each class: train has 400 labelled"),
        ({"per_class": (), "shares": (0.1,), "splits": 11}, 500, "shares", "11 splits of percent10 take 550 samples"),
        ({"per_class": (), "shares": ()}, 500, "", "nothing to learn from"),
    ],
)
def test_too_small_data_is_refused(hyper: dict[str, object], labelled: int, knob: str, message: str) -> None:
    few = LowShot.lacks(LowShot.Hyper.model_validate(hyper), labelled, 10)
    assert few
    assert (few.knob, few.message[: len(message)]) == (knob, message)
    assert LowShot.lacks(LowShot.Hyper(), 1000, 10) is None
    features = digits()
    few_samples = features._replace(train=features.train[:40], train_label=features.train_label[:40])
    with pytest.raises(SpecError, match=r"^per_class: 3 splits of shot2 take 60 samples, but train has 40"):
        run(few_samples)


@pytest.mark.parametrize("wrong", [{"per_class": (3,)}, {"shares": (0.5,)}, {"splits": 0}])
def test_other_columns_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        LowShot.Hyper.model_validate(wrong)

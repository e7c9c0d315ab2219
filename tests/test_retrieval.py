"""Retrieval against scikit-learn's average precision, a loop over ranks in NumPy, and numbers counted by hand."""

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.metrics import average_precision_score
from sklearn.preprocessing import normalize

from selfsup.evals import retrieval
from selfsup.evals.retrieval import Retrieval
from selfsup.evaluator import Features, numbers


def digits() -> Features:
    value, label = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(value))
    value, label = value[order].astype(np.float32), label[order].astype(np.int64)
    return Features(value[:700], label[:700], value[700:900], label[700:900], classes=10)


def run(features: Features) -> dict[str, float]:
    return numbers(dict(Retrieval(Retrieval.Hyper()).run(features, seed=0)))


def angles(*degrees: float) -> np.ndarray:
    turn = np.deg2rad(degrees)
    return np.stack([np.cos(turn), np.sin(turn)], 1).astype(np.float32)


def by_class(value: np.ndarray, label: np.ndarray) -> float:
    return float(np.mean([value[label == own].mean() for own in np.unique(label)]))


def looped(cosine: np.ndarray, label: np.ndarray, own: int) -> float:
    """The average precision of one query: the share of its class among the first r, at each r where one of it is."""
    found, precisions = 0, []
    for rank, row in enumerate(np.argsort(-cosine), start=1):
        if label[row] == own:
            found += 1
            precisions.append(found / rank)
    return sum(precisions) / len(precisions)


def test_map_is_that_of_scikit_learn_and_of_a_loop() -> None:
    features = digits()
    cosine = normalize(features.val.astype(np.float64)) @ normalize(features.train.astype(np.float64)).T
    pairs = list(zip(cosine, features.val_label, strict=True))
    average = np.array([average_precision_score(features.train_label == own, row) for row, own in pairs])
    loop = [looped(row, features.train_label, own) for row, own in pairs]
    np.testing.assert_allclose(loop, average, atol=1e-4)  # of two digits that are as similar, a loop puts one first
    nearest = features.train_label[cosine.argmax(1)] == features.val_label
    expected = {"map": average.mean(), "class_map": by_class(average, features.val_label), "recall1": nearest.mean()}
    assert run(features) == pytest.approx({name: 100 * score for name, score in expected.items()}, abs=1e-3)


def test_average_precision_is_the_one_counted_by_hand() -> None:
    """Ranks of the query at 0: 10 (its own), 20, 30 (its own), 40: (1 + 2/3) / 2. At 60: 40, 30 (own), 20, 10 (own)."""
    features = Features(angles(30, 20, 10, 40), np.array([0, 1, 0, 1]), angles(0, 60), np.array([0, 0]), classes=2)
    expected = 100 * ((1 + 2 / 3) / 2 + (1 / 2 + 2 / 4) / 2) / 2
    assert run(features) == pytest.approx({"map": expected, "class_map": expected, "recall1": 50.0})


def test_a_class_counts_once_whatever_its_size() -> None:
    """Queries of class 0 have precision 1, the one of class 1, whose own is ranked second, 1/2."""
    features = Features(angles(0, 90), np.array([0, 1]), angles(0, 5, 9, 40), np.array([0, 0, 0, 1]), classes=2)
    assert run(features) == pytest.approx({"map": 87.5, "class_map": 75.0, "recall1": 75.0})


def test_equal_features_have_the_precision_of_chance_in_any_order() -> None:
    label = np.arange(12) % 3
    for own in (label, np.sort(label), np.sort(label)[::-1].copy()):
        same = Features(np.ones((12, 4), np.float32), own, np.ones((3, 4), np.float32), np.arange(3), classes=3)
        assert run(same) == pytest.approx({"map": 100 / 3, "class_map": 100 / 3, "recall1": 100 / 3})


def test_a_query_whose_class_has_no_training_sample_counts_nothing() -> None:
    features = Features(angles(0, 90), np.array([0, 1]), angles(0, 0), np.array([0, 2]), classes=3)
    assert run(features) == pytest.approx({"map": 50.0, "class_map": 50.0, "recall1": 50.0})


def test_separable_classes_are_retrieved_whole_and_noise_by_chance() -> None:
    label, noise = np.arange(600) % 4, np.random.default_rng(0).normal(size=(600, 8)).astype(np.float32)
    apart = 100 * np.eye(4, 8, dtype=np.float32)[label] + noise
    perfect = run(Features(apart[:500], label[:500], apart[500:], label[500:], classes=4))
    assert perfect == {"map": 100.0, "class_map": 100.0, "recall1": 100.0}
    chance = run(Features(noise[:500], label[:500], noise[500:], label[500:], classes=4))
    assert chance["map"] == pytest.approx(25, abs=3)


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run(digits())
    monkeypatch.setattr(retrieval, "SIMILARITIES", 700 * 7)
    assert run(digits()) == pytest.approx(whole, abs=1e-4)

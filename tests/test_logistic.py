"""Logistic regression against scikit-learn's, and what it must not look at."""

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.preprocessing import normalize

from selfsup.errors import DataError
from selfsup.evals.logistic import Logistic, unit
from selfsup.evaluator import Features
from selfsup.parts import softmax_regression
from selfsup.parts.softmax_regression import Inputs

CS = (0.01, 1.0, 100.0)


def digits() -> Features:
    value, label = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(value))
    value, label = value[order].astype(np.float32), label[order].astype(np.int64)
    return Features(value[:500], label[:500], value[1000:], label[1000:], classes=10)


def reference(value: np.ndarray, label: np.ndarray, c: float) -> LogisticRegression:
    return LogisticRegression(C=c, tol=1e-8, max_iter=5000).fit(normalize(value.astype(np.float64)), label)


@pytest.mark.parametrize("c", CS)
def test_probabilities_are_those_of_scikit_learn(c: float) -> None:
    features = digits()
    train, val = Inputs(features.train, unit), unit(torch.as_tensor(features.val))
    weight = Logistic(Logistic.Hyper()).fit(train, torch.as_tensor(features.train_label), np.zeros((65, 10)), c)
    found = (val @ torch.as_tensor(weight)).softmax(1).numpy()
    expected = reference(features.train, features.train_label, c).predict_proba(normalize(features.val))
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_c_is_scikit_learn_s_choice_on_the_same_tenth_and_the_fit_is_to_all_of_train() -> None:
    features = digits()
    held, rest = np.split(torch.randperm(500, generator=torch.Generator().manual_seed(3)).numpy(), [50])
    value, label = features.train, features.train_label
    fits = {c: reference(value[rest], label[rest], c) for c in CS}
    losses = {c: log_loss(label[held], fit.predict_proba(normalize(value[held]))) for c, fit in fits.items()}
    scores = dict(Logistic(Logistic.Hyper(cs=CS)).run(features, seed=3))
    assert scores["c"] == min(losses, key=lambda c: losses[c])
    whole = reference(value, label, scores["c"])
    assert isinstance(scores["top1"], np.ndarray)
    hits = whole.predict(normalize(features.val)) == features.val_label
    assert (scores["top1"] == hits).mean() > 0.998  # of 797: a tie may fall otherwise
    assert 0.9 < hits.mean() < 1


def test_val_is_never_looked_at() -> None:
    features = digits()
    shuffled = features._replace(val=features.val[::-1] * 7, val_label=features.val_label * 0)
    first, second = (dict(Logistic(Logistic.Hyper(cs=CS)).run(part, seed=0)) for part in (features, shuffled))
    assert first["c"] == second["c"]


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    features, generator = digits(), torch.Generator().manual_seed(0)
    weight = torch.randn(65, 10, generator=generator, dtype=torch.float64)
    held = Inputs(features.train, unit), torch.as_tensor(features.train_label)
    whole = softmax_regression.slope(weight, *held)
    monkeypatch.setattr(softmax_regression, "HELD", 65 * 7)
    parts = softmax_regression.slope(weight, *held)
    assert parts[0] == pytest.approx(whole[0])
    torch.testing.assert_close(parts[1], whole[1])


def test_one_sample_is_too_few() -> None:
    assert Logistic.lacks(Logistic.Hyper(), 2, 2) is None
    few = Features(np.ones((1, 2), np.float32), np.array([0]), np.ones((1, 2), np.float32), np.array([0]), classes=2)
    with pytest.raises(DataError, match="every guess would be"):
        dict(Logistic(Logistic.Hyper()).run(few, seed=0))
    told = Logistic.lacks(Logistic.Hyper(), 1, 2)
    assert told
    assert told.message.endswith("it needs 2 or more, not 1")


@pytest.mark.parametrize("cs", [(), (1.0, 0.0), (-1.0,)])
def test_strengths_that_are_none_are_refused(cs: tuple[float, ...]) -> None:
    with pytest.raises(ValidationError, match="cs"):
        Logistic.Hyper(cs=cs)

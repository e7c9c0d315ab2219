"""Moments of features against NumPy's in float64, however many are in memory at once."""

import numpy as np
import pytest
import torch

from selfsup.parts import moments


@pytest.mark.parametrize("shape", [(300, 8), (300, 5, 8)], ids=["pooled", "tokens"])
def test_moments_are_those_of_the_rows(shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    draw = np.random.default_rng(0)
    features = (1000 + 7 * draw.normal(size=shape)).astype(np.float32)
    rows = torch.as_tensor(draw.permutation(300)[:200])
    chosen = features[rows.numpy()].reshape(-1, 8).astype(np.float64)
    monkeypatch.setattr(moments, "VALUES", 8 * 37)
    mean, std = moments.moments(features, rows, "cpu")
    np.testing.assert_allclose(mean, chosen.mean(0), rtol=1e-6)
    np.testing.assert_allclose(std, np.sqrt(chosen.var(0) + 1e-6), rtol=1e-6)

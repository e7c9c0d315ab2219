"""Softmax regression, L2-regularized, fitted by L-BFGS in float64. N: samples, D: inputs, K: classes."""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from torch import Tensor

from selfsup.bounded import at_once

HELD = 2**25  # numbers that are usually held at once: 256 MiB
Weight = NDArray[np.float64]


class Inputs:
    """N samples, made of features that may lie on disk, a part at a time; kept where one part is all.

    features: (F, ...) float32. made: -> (n, D) float64, of n samples' features. rows: (N,), which samples; None: all.
    """

    def __init__(
        self,
        features: NDArray[np.float32],
        made: Callable[[Tensor], Tensor],
        rows: Tensor | None = None,
        device: str | torch.device = "cpu",
    ) -> None:
        self._features, self._made, self.device = features, made, device
        self.rows = torch.arange(len(features)) if rows is None else rows
        self.width = made(torch.zeros(1, *features.shape[1:])).shape[1]
        self._whole: Tensor | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def split(self, size: int) -> Iterator[Tensor]:
        """Yield (size, D), of the last samples fewer."""
        if len(self) > size:
            yield from (self._part(rows) for rows in torch.split(self.rows, size))
        else:
            self._whole = self._part(self.rows) if self._whole is None else self._whole
            yield self._whole

    def _part(self, rows: Tensor) -> Tensor:
        return self._made(torch.as_tensor(self._features[rows.numpy()], device=self.device))


def fit(inputs: Inputs, label: Tensor, start: Weight, decay: Weight, *, iterations: int) -> Weight:
    """(N, D), (N,), (D, K), (D, 1) -> (D, K): minimize the mean cross-entropy + Σ decay W² / 2, from `start` on."""

    def objective(flat: Weight) -> tuple[float, Weight]:
        weight = flat.reshape(start.shape)
        loss, gradient = slope(torch.as_tensor(weight, device=inputs.device), inputs, label)
        return loss + float((decay * weight**2).sum()) / 2, (gradient.cpu().numpy() + decay * weight).ravel()

    options = {"maxiter": iterations, "maxfun": 2 * iterations, "ftol": 0, "gtol": 1e-8}
    best: Weight = minimize(objective, start.ravel(), jac=True, method="L-BFGS-B", options=options).x
    return best.reshape(start.shape)


def fit_biased(inputs: Inputs, label: Tensor, start: Weight, c: float, *, iterations: int) -> Weight:
    """(N, D), (N,), (D, K) -> (D, K): minimize the mean cross-entropy + |W|² / 2 C N; the last input, a one, is free"""
    decay = np.ones((len(start), 1)) / (c * len(inputs))
    decay[-1] = 0
    return fit(inputs, label, start, decay, iterations=iterations)


def slope(weight: Tensor, inputs: Inputs, label: Tensor) -> tuple[float, Tensor]:
    """(D, K), (N, D), (N,) -> the mean cross-entropy and (D, K), its gradient"""
    loss, gradient, size = 0.0, weight * 0, _size(weight)
    for part, own in zip(inputs.split(size), torch.split(label, size), strict=True):
        share = (part @ weight).log_softmax(1)
        loss -= float(share[range(len(own)), own].sum())
        error = share.exp()
        error[range(len(own)), own] -= 1
        gradient += part.T @ error
    return loss / len(inputs), gradient / len(inputs)


def guesses(weight: Weight, inputs: Inputs, handicap: NDArray[np.float32]) -> NDArray[np.int64]:
    """(D, K), (N, D), (K,) -> (N,): the class of the largest logit, the handicap added to each"""
    matrix, more = (torch.as_tensor(part, device=inputs.device) for part in (weight, handicap))
    parts = [(part @ matrix + more).argmax(1) for part in inputs.split(_size(matrix))]
    guess: NDArray[np.int64] = torch.cat(parts).cpu().numpy()
    return guess


def _size(weight: Tensor) -> int:
    """Return how many samples are held at once, with a logit for each class."""
    return at_once(HELD, max(weight.shape))

"""Softmax regression, L2-regularized, fitted by L-BFGS in float64. N: samples, D: inputs, K: classes."""

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from torch import Tensor

LOGITS = 2**25  # how many are held at once: 256 MiB
Weight = NDArray[np.float64]


def fit(value: Tensor, label: Tensor, start: Weight, decay: Weight, *, iterations: int) -> Weight:
    """(N, D), (N,), (D, K), (D, 1) -> (D, K): minimize the mean cross-entropy + Σ decay W² / 2, from `start` on."""

    def objective(flat: Weight) -> tuple[float, Weight]:
        weight = flat.reshape(start.shape)
        loss, gradient = slope(torch.as_tensor(weight, device=value.device), value, label)
        return loss + float((decay * weight**2).sum()) / 2, (gradient.cpu().numpy() + decay * weight).ravel()

    options = {"maxiter": iterations, "maxfun": 2 * iterations, "ftol": 0, "gtol": 1e-8}
    best: Weight = minimize(objective, start.ravel(), jac=True, method="L-BFGS-B", options=options).x
    return best.reshape(start.shape)


def slope(weight: Tensor, value: Tensor, label: Tensor) -> tuple[float, Tensor]:
    """(D, K), (N, D), (N,) -> the mean cross-entropy and (D, K), its gradient"""
    loss, gradient = 0.0, weight * 0
    rows = max(1, LOGITS // weight.shape[1])
    for part, own in zip(torch.split(value, rows), torch.split(label, rows), strict=True):
        share = (part @ weight).log_softmax(1)
        loss -= float(share[range(len(own)), own].sum())
        error = share.exp()
        error[range(len(own)), own] -= 1
        gradient += part.T @ error
    return loss / len(value), gradient / len(value)


def guesses(weight: Weight, value: Tensor) -> NDArray[np.int64]:
    """(D, K), (N, D) -> (N,): the class of the largest logit"""
    matrix = torch.as_tensor(weight, device=value.device)
    parts = torch.split(value, max(1, LOGITS // weight.shape[1]))
    guess: NDArray[np.int64] = torch.cat([(part @ matrix).argmax(1) for part in parts]).cpu().numpy()
    return guess

"""Random walks: probabilities by loops over nodes, gradients by differences, and two nodes by hand."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from selfsup.parts.walks import cycles, transitions


def stepped(nodes: NDArray[np.float64], others: NDArray[np.float64], dropped: NDArray[np.bool_]) -> NDArray[np.float64]:
    """(N, D), (N, D), (N, N) -> (N, N): by a sum over the edges that are left, node by node"""
    made = np.zeros((len(nodes), len(others)))
    for row, node in enumerate(nodes):
        left = [column for column in range(len(others)) if not dropped[row, column]]
        weights = [math.exp(node @ others[column] / 0.2) for column in left]
        made[row, left] = np.array(weights) / sum(weights)
    return made


def walked(nodes: NDArray[np.float64], dropped: NDArray[np.bool_]) -> list[NDArray[np.float64]]:
    """(T, N, D), (2, T - 1, N, N) -> (N, N) of each walk: a product of NumPy's matrices along the whole palindrome"""
    last, made = len(nodes) - 1, []
    for turn in range(2, last + 1):
        times = [*range(turn + 1), *range(turn - 1, -1, -1)]
        matrix = np.eye(nodes.shape[1])
        for here, there in pairwise(times):
            way = int(there < here)
            matrix = matrix @ stepped(nodes[here], nodes[there], dropped[way, min(here, there)])
        made.append(matrix)
    return made


def test_walks_are_products_of_matrices_in_value_and_gradient() -> None:
    """Central differences of the loss of NumPy's products, node by node."""
    draw = np.random.default_rng(0)
    nodes = draw.normal(size=(2, 4, 3, 5))
    nodes /= np.linalg.norm(nodes, axis=3, keepdims=True)
    dropped = draw.random((2, 2, 3, 3, 3)) < 0.3
    dropped[..., 0] = False  # some edge is left
    given = torch.from_numpy(nodes).requires_grad_()
    ends = cycles(*transitions(given, torch.from_numpy(dropped), temperature=0.2))
    assert ends.shape == (2, 2, 3, 3)
    for sample in range(2):
        for own, theirs in zip(ends[:, sample], walked(nodes[sample], dropped[sample]), strict=True):
            np.testing.assert_allclose(own.detach().numpy(), theirs, rtol=1e-10)
    (-ends.diagonal(dim1=-2, dim2=-1).log().mean()).backward()

    def numpy_loss(nodes: NDArray[np.float64]) -> float:
        walks = [walked(*sample) for sample in zip(nodes, dropped, strict=True)]
        return float(-np.mean([[np.log(np.diag(matrix)) for matrix in own] for own in walks]))

    assert given.grad is not None
    for place in [(0, 0, 0, 0), (0, 1, 2, 3), (1, 2, 1, 4), (1, 3, 0, 2)]:
        moved = np.zeros_like(nodes)
        moved[place] = 1e-5
        slope = (numpy_loss(nodes + moved) - numpy_loss(nodes - moved)) / 2e-5
        assert given.grad[place].item() == pytest.approx(slope, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("angle", [0.3, 1.0, 2.5])
def test_two_nodes_that_never_move_come_back_as_worked_out_by_hand(angle: float) -> None:
    """Each step stays with p = 1 / (1 + exp(-(1 - cos θ) / τ)), 2k of them come back with (1 + (2p - 1)^2k) / 2.

    The slope: dp / dθ = p (1 - p) sin θ / τ.
    """
    theta = torch.tensor(angle, dtype=torch.float64, requires_grad=True)
    pair = torch.stack([torch.stack([torch.ones_like(theta), 0 * theta]), torch.stack([theta.cos(), theta.sin()])])
    none = torch.zeros(1, 2, 3, 2, 2, dtype=torch.bool)
    ends = cycles(*transitions(pair.expand(1, 4, 2, 2), none, temperature=0.2))
    value = -ends.diagonal(dim1=-2, dim2=-1).log().mean()
    value.backward()
    stay = 1 / (1 + math.exp(-(1 - math.cos(angle)) / 0.2))
    excess, slope = 2 * stay - 1, stay * (1 - stay) * math.sin(angle) / 0.2
    back = {turn: (1 + excess ** (2 * turn)) / 2 for turn in (2, 3)}
    assert value.item() == pytest.approx(-sum(map(math.log, back.values())) / 2, rel=1e-12)
    slopes = [-turn * excess ** (2 * turn - 1) * 2 * slope / back[turn] for turn in back]
    assert theta.grad is not None
    assert theta.grad.item() == pytest.approx(sum(slopes) / 2, rel=1e-9)


def test_a_node_without_edges_goes_anywhere() -> None:
    nodes = F.normalize(torch.randn(1, 2, 4, 3), dim=3)
    out, home = transitions(nodes, torch.ones(1, 2, 1, 4, 4, dtype=torch.bool), temperature=0.1)
    torch.testing.assert_close(out, torch.full((1, 1, 4, 4), 0.25))
    torch.testing.assert_close(home, out)

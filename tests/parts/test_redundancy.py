"""Against lightly, which methods.md found equal to the papers' code; and cut among processes that there are not."""

import numpy as np
import pytest
import torch
from lightly.loss import BarlowTwinsLoss, TiCoLoss, VICRegLoss
from precision import double_precision
from torch import Tensor
from torch.nn.functional import normalize

from selfsup.parts import redundancy
from selfsup.parts.redundancy import barlow_twins, coding_rate, second_moment, tico, vicreg


def views(n: int = 20, dim: int = 7) -> tuple[Tensor, Tensor]:
    """Two that are alike, in channels of unequal spread that follow each other."""
    generator = torch.Generator().manual_seed(0)
    common, mix = torch.randn(n, dim, generator=generator), torch.randn(dim, dim, generator=generator)
    return tuple(((common + torch.randn(n, dim, generator=generator)) @ mix / 4 + 1).requires_grad_() for _ in range(2))


def weighted(a: Tensor, b: Tensor) -> Tensor:
    terms = vicreg(a, b)
    return 25 * terms.invariance + 25 * terms.variance + terms.covariance


def barlow(a: Tensor, b: Tensor) -> Tensor:
    return barlow_twins(a, b, redundancy=0.0051)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [(barlow, BarlowTwinsLoss(lambda_param=0.0051)), (weighted, VICRegLoss())],
    ids=["Barlow Twins", "VICReg"],
)
def test_values_and_gradients_are_lightlys(ours, theirs) -> None:
    a, b = views()
    loss, expected = ours(a, b), theirs(a, b)
    torch.testing.assert_close(loss, expected)
    for mine, grad in zip(torch.autograd.grad(loss, (a, b)), torch.autograd.grad(expected, (a, b)), strict=True):
        assert grad.abs().max() > 1e-3
        torch.testing.assert_close(mine, grad, rtol=1e-4, atol=1e-6)


def test_vicreg_by_loops() -> None:
    """The sums of the paper's equations 1 to 6, of which the authors' code averages two: see `vicreg`."""
    a, b = (view.detach().double() for view in views())
    n, d = a.shape
    variance = covariance = 0.0
    for z in (a, b):
        centered = z - z.sum(0) / n
        c = sum(torch.outer(row, row) for row in centered) / (n - 1)
        variance += sum(max(0.0, 1 - (c[j, j].item() + 1e-4) ** 0.5) for j in range(d)) / d
        covariance += sum(c[i, j].item() ** 2 for i in range(d) for j in range(d) if i != j) / d
    distance = sum(((x - y) ** 2).sum().item() for x, y in zip(a, b, strict=True)) / n
    assert variance > 0.1
    found = [term.item() for term in vicreg(a, b)]
    assert found == pytest.approx([distance / d, variance / 2, covariance], rel=1e-5)


@pytest.mark.parametrize("loss", [barlow, weighted])
@pytest.mark.parametrize("world", [2, 3, 9])
def test_the_shares_of_processes_have_the_mean_of_the_whole(loss, world: int, monkeypatch) -> None:
    """Seven channels among processes, unequally many to each; every process has gathered the whole batch."""
    a, b = views()
    whole, shares = loss(a, b), []
    for rank in range(world):
        monkeypatch.setattr(redundancy.dist, "world_size", lambda: world)
        monkeypatch.setattr(redundancy.dist, "rank", lambda rank=rank: rank)
        monkeypatch.setattr(redundancy.dist, "gather", lambda x: x)
        shares.append(loss(a, b))
    torch.testing.assert_close(torch.stack(shares).mean(), whole)


def test_tico_is_lightlys_step_after_step() -> None:
    theirs, moment = TiCoLoss(beta=0.9, rho=8.0), torch.zeros(7, 7)
    for step in range(3):
        a, b = (view.detach() + step for view in views())
        a.requires_grad_()
        expected, query = theirs(a, b), normalize(a, dim=1)
        moment = 0.9 * moment + 0.1 * second_moment(query.detach())
        loss = tico(query, normalize(b, dim=1), moment, contrast=8.0)
        torch.testing.assert_close(loss, expected)
        [ours], [grad] = torch.autograd.grad(loss, a), torch.autograd.grad(expected, a)
        torch.testing.assert_close(ours, grad, rtol=1e-4, atol=1e-7)


def test_the_second_moment_has_a_gradient_where_its_rows_have_one() -> None:
    a, _ = views()
    found = second_moment(a.detach())
    assert (found.requires_grad, second_moment(a).requires_grad) == (False, True)
    torch.testing.assert_close(found, torch.stack([torch.outer(row, row) for row in a.detach()]).mean(0))


def test_autocast_does_not_reach_inside() -> None:
    (a, b), moment = views(), torch.eye(7)
    losses = (barlow, weighted, lambda a, b: tico(a, b, moment, contrast=8.0), lambda a, b: second_moment(a - b).sum())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert (a @ b.T).dtype == torch.bfloat16
        inside = [loss(a, b) for loss in losses]
    assert all(found.equal(loss(a, b)) for found, loss in zip(inside, losses, strict=True))


def unit_views(samples: int = 12, dim: int = 5) -> Tensor:
    """(2, N, D): unit vectors, of uneven spread, in double precision."""
    z = torch.randn(2, samples, dim, generator=torch.Generator().manual_seed(0)) * torch.linspace(0.2, 2, dim)
    return normalize(z, dim=2).double().requires_grad_()


def rate_of_determinants(z: np.ndarray) -> float:
    """gamma / 2 * ln det(I + d / (N eps^2) Z^T Z), the mean of views, by NumPy."""
    number, dim = z.shape[1:]
    logs = [np.linalg.slogdet(np.eye(dim) + dim / (number * 0.05) * view.T @ view)[1] / 2 for view in z]
    return (dim + number) / (dim * number) * float(np.mean(logs))


def test_the_coding_rate_is_of_determinants_in_value_and_gradient() -> None:
    """NumPy's, in double precision; the slope by differences."""
    z = unit_views()
    with double_precision():
        rate = coding_rate(z, distortion=0.05)
    assert rate.item() == pytest.approx(rate_of_determinants(z.detach().numpy()), rel=1e-12)
    [slope], moved = torch.autograd.grad(rate, z), z.detach().numpy()
    for place in ((0, 0, 0), (1, 3, 2), (1, 11, 4)):
        step = np.zeros_like(moved)
        step[place] = 1e-5
        expected = (rate_of_determinants(moved + step) - rate_of_determinants(moved - step)) / 2e-5
        assert slope[place].item() == pytest.approx(expected, rel=1e-6)


def test_the_rate_is_largest_where_features_fill_their_space() -> None:
    """Rows that are an orthonormal basis: d / (2 eps^2 d) + 1 on each axis; all alike: one axis has all."""
    basis, gamma = torch.eye(4).repeat(3, 1)[None], (4 + 12) / (4 * 12)
    even = coding_rate(basis, distortion=0.5)
    assert even.item() == pytest.approx(gamma / 2 * 4 * np.log(1 + 1 / 0.5), rel=1e-6)
    same = coding_rate(torch.eye(4)[:1].repeat(12, 1)[None], distortion=0.5)
    assert same.item() == pytest.approx(gamma / 2 * np.log(1 + 4 / 0.5), rel=1e-6)
    assert same < even


def test_the_rate_of_workers_apart_is_another() -> None:
    """SimDINO's code without reduce_cov: two workers' moments of their own samples, divided by the number of all."""
    z = unit_views().detach()
    apart = [coding_rate(torch.cat([half, 0 * half], dim=1), distortion=0.05).item() for half in z.chunk(2, dim=1)]
    assert abs(np.mean(apart) / coding_rate(z, distortion=0.05).item() - 1) > 0.1

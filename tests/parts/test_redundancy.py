"""Against lightly, which methods.md found equal to the papers' code; and cut among processes that there are not."""

import pytest
import torch
from lightly.loss import BarlowTwinsLoss, TiCoLoss, VICRegLoss
from torch import Tensor
from torch.nn.functional import normalize

from selfsup.parts import redundancy
from selfsup.parts.redundancy import barlow_twins, second_moment, tico, vicreg


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

"""Sketches against lightly's losses and by SciPy: quadrature, closed forms, what a Gaussian has; and what others do."""

import math

import numpy as np
import pytest
import torch
from lightly.loss import LeJEPALoss, VISRegLoss
from numpy.typing import NDArray
from precision import double_precision
from scipy import integrate, stats
from torch import Tensor

from selfsup.parts import noise, sketches
from selfsup.parts.sketches import directions, epps_pulley, first_draws, next_draws, off_center, visreg

LARGE, WEIGHT = 2, 0.05


def views(samples: int = 12, dim: int = 5) -> Tensor:
    """(4, N, D): two large ones and two small ones, which are alike, of unequal spread, in double precision."""
    generator = torch.Generator().manual_seed(0)
    common, own = torch.randn(1, samples, dim, generator=generator), torch.randn(4, samples, dim, generator=generator)
    return ((common + own / 2) * torch.linspace(0.2, 2, dim) + 0.3).double().requires_grad_()


def axes(dim: int = 5, number: int = 6) -> Tensor:
    return directions(torch.tensor([[0.3, 0.7]]), dim, number).double()


def statistic(x: NDArray[np.float64], highest: float = 3.0) -> float:
    """(N,) -> the integral by adaptive quadrature."""

    def integrand(t: float) -> float:
        gaussian = math.exp(-(t**2) / 2)
        return float(abs(np.exp(1j * t * x).mean() - gaussian) ** 2 * gaussian)

    return len(x) * integrate.quad(integrand, -highest, highest)[0]


def test_it_is_the_integral_of_every_view_and_direction() -> None:
    """By quadrature; with 17 frequencies within two per cent of it."""
    z, along = views().detach(), axes()
    expected = np.mean([statistic(x) for view in z for x in (view @ along).T.numpy()])
    assert epps_pulley(z.float(), along.float(), frequencies=2001, highest=3.0).item() == pytest.approx(expected, 1e-5)
    assert epps_pulley(z.float(), along.float(), frequencies=17, highest=3.0).item() == pytest.approx(expected, 0.02)


def test_over_all_frequencies_it_is_a_sum_over_pairs() -> None:
    """The closed form of Epps and Pulley's test, weighted by exp(-t^2 / 2): Gaussians of samples' distances."""
    x = views().detach()[0, :, 0]
    pairs = math.sqrt(2 * math.pi) * (-(x[:, None] - x).square() / 2).exp().sum() / len(x)
    closed = pairs - 2 * math.sqrt(math.pi) * (-x.square() / 4).exp().sum() + len(x) * math.sqrt(2 * math.pi / 3)
    found = epps_pulley(x[None, :, None].float(), torch.ones(1, 1), frequencies=1001, highest=8.0)
    assert found.item() == pytest.approx(closed.item(), rel=1e-5)


def test_samples_of_a_gaussian_have_its_mean_and_others_more() -> None:
    """The integral of (1 - exp(-t^2)) exp(-t^2 / 2): what N samples of the Gaussian have in the mean, whatever N is."""
    mean = integrate.quad(lambda t: (1 - math.exp(-(t**2))) * math.exp(-(t**2) / 2), -3, 3)[0]
    generator, along = torch.Generator().manual_seed(0), axes(8, 16).float()
    for samples in (16, 64):
        z = torch.randn(300, samples, 8, generator=generator)
        assert epps_pulley(z, along, frequencies=17, highest=3.0).item() == pytest.approx(mean, rel=0.06)
    others = {
        "shifted": z + 0.5,
        "wider": 1.5 * z,
        "collapsed": 0 * z,
        "along one axis": z * torch.eye(8)[0] * math.sqrt(8),
        "heavy tails": z / torch.rand(300, 64, 1, generator=generator).sqrt(),
    }
    more = {name: epps_pulley(other, along, frequencies=17, highest=3.0) > 1.5 * mean for name, other in others.items()}
    assert more == dict.fromkeys(others, True)


def test_directions_are_of_seed_and_step_alone() -> None:
    torch.manual_seed(0)
    one, two = first_draws(), first_draws()
    assert one[0, 0] != two[0, 0]
    steps = [one.clone()]
    for _ in range(3):
        steps.append(steps[-1].clone())
        next_draws(steps[-1])
    assert [round(step[0, 1].item() * noise.STEPS) for step in steps] == [0, 1, 2, 3]
    drawn = [directions(draws, 16, 3000) for draws in (*steps, two)]
    assert directions(steps[2].clone(), 16, 3000).equal(drawn[2])
    for number, made in enumerate(drawn):
        torch.testing.assert_close(made.norm(dim=0), torch.ones(3000))
        torch.testing.assert_close(16 * made @ made.T / 3000, torch.eye(16), rtol=0, atol=5 / math.sqrt(3000))
        assert stats.kstest(((1 + made[0]) / 2).numpy(), stats.beta(7.5, 7.5).cdf).pvalue > 0.001  # on a sphere in 16-D
        for other in drawn[:number]:
            cosines = (made * other).sum(dim=0)
            assert abs(cosines.mean().item()) < 5 / math.sqrt(16 * 3000)


def lejepa(z: Tensor, along: Tensor) -> Tensor:
    sigreg = epps_pulley(z, along, frequencies=17, highest=3.0)
    return (1 - WEIGHT) * off_center(z, large=LARGE) + WEIGHT * sigreg


def lightlys(z: Tensor, along: Tensor) -> Tensor:
    """In double precision, but for its constants."""
    theirs = LeJEPALoss(WEIGHT).double()
    theirs.sigreg._generate_unit_vectors = lambda *_: along
    return theirs(local_proj=z[LARGE:], global_proj=z[:LARGE])


def test_value_and_gradient_are_lightlys() -> None:
    z, along = views(), axes()
    with double_precision():
        loss, expected = lejepa(z, along), lightlys(z, along)
    [ours], [theirs] = torch.autograd.grad(loss, z), torch.autograd.grad(expected, z)
    assert theirs.abs().max() > 1e-3
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-9)


def test_by_loops() -> None:
    """The mean over views, samples and channels of the squared distance from the mean of two views."""
    z = views().detach()
    center = [[(z[0, n, d] + z[1, n, d]).item() / 2 for d in range(5)] for n in range(12)]
    total = sum((z[v, n, d].item() - center[n][d]) ** 2 for v in range(4) for n in range(12) for d in range(5))
    assert off_center(z, large=LARGE).item() == pytest.approx(total / (4 * 12 * 5), rel=1e-5)


def sigreg(z: Tensor, along: Tensor) -> Tensor:
    return epps_pulley(z, along, frequencies=17, highest=3.0)


def of_lightly_by_default(z: Tensor, along: Tensor) -> Tensor:
    """lightly 1.6.0 on two workers, without gather_distributed: the mean of the statistics of each one's samples."""
    apart = torch.stack([sigreg(half, along) for half in z.chunk(2, dim=1)]).mean()
    return (1 - WEIGHT) * off_center(z, large=LARGE) + WEIGHT * apart


def of_older_lightly(z: Tensor, along: Tensor) -> Tensor:
    """lightly 1.5.24 to 1.5.26: both terms are of small views alone."""
    distance = (z[LARGE:] - z[:LARGE].mean(0)).square().mean()
    return (1 - WEIGHT) * distance + WEIGHT * sigreg(z[LARGE:], along)


def of_stable_pretraining(z: Tensor, along: Tensor) -> Tensor:
    """stable-pretraining 0.1.8: the distance has a weight of 1, and all views are samples of one statistic."""
    return off_center(z, large=LARGE) + WEIGHT * sigreg(z.flatten(0, 1)[None], along)


def of_its_workers(z: Tensor, along: Tensor) -> Tensor:
    """The same on two workers: each has a mean of its own samples, times the number of all."""
    apart = torch.stack([2 * sigreg(half.flatten(0, 1)[None], along) for half in z.chunk(2, dim=1)]).mean()
    return off_center(z, large=LARGE) + WEIGHT * apart


def of_eb_jepa(z: Tensor, along: Tensor) -> Tensor:
    """eb_jepa: two views' distance from each other, plus the statistic times a weight, but not times the samples."""
    return (z[0] - z[1]).square().mean() + 10 * sigreg(z[:LARGE], along) / z.shape[1]


OTHERS = of_lightly_by_default, of_older_lightly, of_stable_pretraining, of_its_workers, of_eb_jepa


@pytest.mark.parametrize(("one", "other"), [(lejepa, other) for other in OTHERS] + [OTHERS[2:4]])
def test_known_deviations_change_the_loss(one, other) -> None:
    """By more than a thirtieth, and the gradient's direction, too."""
    z, along = views().float(), axes().float()
    losses = one(z, along), other(z, along)
    [first], [second] = (torch.autograd.grad(loss, z) for loss in losses)
    assert abs(losses[1].item() / losses[0].item() - 1) > 1 / 30
    assert torch.nn.functional.cosine_similarity(first.flatten(), second.flatten(), dim=0) < 0.999


def test_the_weight_of_eb_jepa_in_ours() -> None:
    """Two views' distance is four times that from their mean; our statistic counts samples. See pipelines/cifar10."""
    z, along = views()[:2].float(), axes().float()
    ratio = 10 / (4 * z.shape[1])
    weight = ratio / (1 + ratio)
    ours = (1 - weight) * off_center(z, large=2) + weight * sigreg(z, along)
    torch.testing.assert_close(4 / (1 - weight) * ours, of_eb_jepa(z, along))


def test_autocast_does_not_reach_inside() -> None:
    z, along = views().float(), axes().float()
    loss = lejepa(z, along)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert (z @ along).dtype == torch.bfloat16
        assert lejepa(z, along).equal(loss)


def weighted(z: Tensor, along: Tensor) -> Tensor:
    terms = visreg(z, along)
    return 0.1 * off_center(z, large=LARGE) + 0.9 * (terms.scale + 2 * terms.shape + 3 * terms.center)


def test_visreg_is_lightlys_in_value_and_gradient(monkeypatch) -> None:
    """Three terms of visreg and the distance, at weights of their own."""
    z, along = views(), axes()
    monkeypatch.setattr(torch, "randn", lambda *_, **__: 3 * along)  # which it normalizes
    theirs = VISRegLoss(num_slices=6, lambda_shape=2.0, lambda_center=3.0)
    expected = theirs(local_proj=z[LARGE:], global_proj=z[:LARGE])
    with double_precision():
        loss = weighted(z, along)
    [ours], [grad] = torch.autograd.grad(loss, z), torch.autograd.grad(expected, z)
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=0)  # its quantiles are in single precision
    torch.testing.assert_close(ours, grad, rtol=1e-5, atol=1e-8)


def test_visreg_by_hand() -> None:
    """Two samples at 1 and 5: a mean of 3, a deviation of 2; so -1 and 1, where a Gaussian's thirds are at 0.43."""
    third = stats.norm.ppf(2 / 3)
    found = visreg(torch.tensor([[[1.0], [5.0]]]), torch.ones(1, 1), epsilon=0.0)
    assert [term.item() for term in found] == pytest.approx([(1 - 2) ** 2, (1 - third) ** 2, 9.0])


def test_visregs_shape_is_a_distance_from_gaussian_quantiles_by_scipy() -> None:
    z, along = views().detach(), axes()
    quantiles, terms = stats.norm.ppf(np.arange(1, 13) / 13), []
    for view in z.numpy():
        unit = (view - view.mean(0)) / (view.std(0) + 1e-4)
        terms += [((np.sort(x) - quantiles) ** 2).mean() for x in (unit @ along.numpy()).T]
    assert visreg(z.float(), along.float()).shape.item() == pytest.approx(np.mean(terms), rel=1e-5)


def test_samples_of_a_gaussian_have_no_visreg_and_a_collapse_has_a_gradient() -> None:
    """Where embeddings collapse, SIGReg's slope vanishes and the scale's does not: figure 2 of VISReg."""
    z, along = torch.randn(2, 4000, 8, generator=torch.Generator().manual_seed(0)), axes(8, 16).float()
    assert max(term.item() for term in visreg(z, along)) < 0.01
    slopes = []
    for loss in (lambda small: sum(visreg(small, along)), lambda small: sigreg(small, along) / 4000):
        small = (1e-3 * z).requires_grad_()
        [grad] = torch.autograd.grad(loss(small), small)
        slopes.append(grad.norm().item())
    assert slopes[0] > 100 * slopes[1]
    same = torch.ones(2, 3, 8, requires_grad=True)
    assert torch.autograd.grad(sum(visreg(same, along)), same)[0].isfinite().all()


@pytest.mark.parametrize("world", [2, 4, 7])
def test_the_shares_of_visregs_directions_have_the_mean_of_the_whole(world: int, monkeypatch) -> None:
    """Six directions among processes, unequally many to each; every process has gathered the whole batch."""
    z, along = views().detach().float(), axes().float()
    whole, shares = weighted(z, along), []
    for rank in range(world):
        monkeypatch.setattr(sketches.dist, "world_size", lambda: world)
        monkeypatch.setattr(sketches.dist, "rank", lambda rank=rank: rank)
        monkeypatch.setattr(sketches.dist, "gather", lambda x: x)
        shares.append(weighted(z, along))
    torch.testing.assert_close(torch.stack(shares).mean(), whole)


def test_workers_apart_have_another_visreg() -> None:
    """lightly's default: visreg of each worker's samples by themselves."""
    z, along = views().float(), axes().float()
    apart = torch.stack([weighted(half, along) for half in z.chunk(2, dim=1)]).mean()
    assert abs(apart.item() / weighted(z, along).item() - 1) > 1 / 30

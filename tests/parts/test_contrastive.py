import math

import pytest
import torch
import torch.nn.functional as F
from lightly.loss import NTXentLoss

from selfsup.parts.contrastive import batch_nce, hardest_contrast, info_nce, matched_nce, nt_xent, nt_xent_chance


def views(n: int = 9, dim: int = 12) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return tuple(3 * torch.randn(n, dim, generator=generator).requires_grad_() for _ in range(2))


@pytest.mark.parametrize("temperature", [0.05, 0.1, 1.0])
def test_nt_xent_is_lightlys_in_value_and_gradient(temperature: float) -> None:
    a, b = views()
    expected = NTXentLoss(temperature=temperature)(a, b)
    loss = nt_xent(a, b, temperature=temperature)
    torch.testing.assert_close(loss, expected)
    for ours, theirs in zip(torch.autograd.grad(loss, (a, b)), torch.autograd.grad(expected, (a, b)), strict=True):
        assert theirs.abs().max() > 1e-4
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-7)


def test_nt_xent_by_hand() -> None:
    """Two images on two axes: each view meets its partner at cosine 1 and the two views of the other image at 0."""
    a = torch.eye(2)
    expected = -math.log(math.e / (math.e + 2))
    assert nt_xent(a, 5 * a, temperature=1.0).item() == pytest.approx(expected, rel=1e-6)


def test_embeddings_that_are_all_the_same_lose_by_chance() -> None:
    a = torch.ones(4, 3)
    assert nt_xent_chance(a).item() == pytest.approx(math.log(7))
    assert nt_xent(a, a, temperature=0.1).item() == pytest.approx(math.log(7))


def test_autocast_does_not_reach_into_nt_xent() -> None:
    a, b = views()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert (a @ b.T).dtype == torch.bfloat16
        inside = nt_xent(a, b, temperature=0.1)
    assert inside.equal(nt_xent(a, b, temperature=0.1))


@pytest.mark.parametrize("temperature", [0.07, 0.2])
def test_info_nce_is_lightlys_with_a_memory_bank(temperature: float) -> None:
    (query, key), queue = views(), F.normalize(torch.randn(18, 12), dim=1)
    theirs = NTXentLoss(temperature=temperature, memory_bank_size=(18, 12))
    theirs.memory_bank.bank = queue.clone()
    theirs.memory_bank.bank_ptr = torch.zeros(1, dtype=torch.int64)
    expected = theirs(query, key)
    loss = info_nce(query, F.normalize(key, dim=1), queue, temperature=temperature)
    torch.testing.assert_close(loss, expected)
    [ours], [grad] = torch.autograd.grad(loss, query), torch.autograd.grad(expected, query)
    torch.testing.assert_close(ours, grad, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_batch_nce_is_written_out_in_value_and_gradient(temperature: float) -> None:
    """Each query against the keys of all samples, in float64; the gradient goes to both."""
    query, key = views()
    losses = []
    for number, q in enumerate(query.double()):
        scores = [F.cosine_similarity(q, k, dim=0) / temperature for k in key.double()]
        losses.append(torch.log(sum(score.exp() for score in scores)) - scores[number])
    expected, loss = torch.stack(losses).mean(), batch_nce(query, key, temperature=temperature)
    torch.testing.assert_close(loss.double(), expected, rtol=1e-5, atol=1e-7)
    ours, theirs = (torch.autograd.grad(value, (query, key)) for value in (loss, expected))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_matched_nce_is_cross_entropy_among_matches_alone_in_value_and_gradient() -> None:
    """PointInfoNCE by torch's cross-entropy of the rows and columns that match, in float64."""
    (a, b), is_matched = views(6), torch.tensor([True, False, True, True, False, True])
    unit = [F.normalize(part.double()[is_matched], dim=1) for part in (a, b)]
    expected = F.cross_entropy(unit[0] @ unit[1].T / 0.4, torch.arange(4))
    loss = matched_nce(a, b, is_matched, temperature=0.4)
    torch.testing.assert_close(loss.double(), expected, rtol=1e-5, atol=1e-7)
    for ours, theirs in zip(torch.autograd.grad(loss, (a, b)), torch.autograd.grad(expected, (a, b)), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)
    assert matched_nce(a, b, is_matched & False, temperature=0.4).item() == 0


@pytest.mark.parametrize(
    ("same", "nearest"),
    [([], (60, 90, 30, 90, 30, 60)), ([(0, 2), (2, 0)], (150, 90, 30, 90, 30, 150))],
)
def test_the_hardest_contrast_by_hand(same: list[tuple[int, int]], nearest: tuple[int, ...]) -> None:
    """Three matches on a circle, at 0 and 0, 90 and 150, 180 and 300 degrees, and a place without one at 45.

    Squared distances of partners are 0, 1 and 3. nearest: how many degrees away each of a has the nearest partner of
    another place, then each of b. same: places that are not another's.
    """
    degrees = torch.deg2rad(torch.tensor([[0.0, 90.0, 180.0, 45.0], [0.0, 150.0, 300.0, 45.0]]))
    (a, b), is_near = torch.stack([degrees.cos(), degrees.sin()], dim=2), torch.eye(4, dtype=torch.bool)
    for pair in same:
        is_near[pair] = True
    matched = torch.tensor([True, True, True, False])
    apart, lacking = hardest_contrast(a, 3 * b, matched, is_near, pull=0.1, push=1.4)
    assert apart.item() == pytest.approx((0 + (1 - 0.1) + (3 - 0.1)) / 3, rel=1e-5)
    chords = [2 * math.sin(math.radians(angle) / 2) for angle in nearest]
    assert lacking.item() == pytest.approx(sum(max(0, 1.4 - chord) ** 2 for chord in chords) / 6, rel=1e-4)

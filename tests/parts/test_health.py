import pytest
import torch

from selfsup.parts.health import feature_std, rankme


def test_feature_std_is_one_on_the_whole_sphere_and_zero_on_a_point() -> None:
    torch.manual_seed(0)
    assert feature_std(torch.randn(4000, 64)).item() == pytest.approx(1, abs=0.01)
    assert feature_std(torch.rand(64).expand(100, -1)).item() == pytest.approx(0, abs=1e-5)


def test_feature_std_ignores_length() -> None:
    torch.manual_seed(0)
    z = torch.randn(50, 8)
    assert feature_std(z * torch.rand(50, 1)).item() == pytest.approx(feature_std(z).item(), abs=1e-6)


@pytest.mark.parametrize("rank", [1, 3, 7])
def test_rankme_counts_equal_directions(rank: int) -> None:
    basis = torch.linalg.qr(torch.randn(20, 20, generator=torch.Generator().manual_seed(0))).Q
    assert rankme(basis[:, :rank] @ basis[:rank]).item() == pytest.approx(rank, rel=1e-3)


def test_rankme_of_two_unequal_directions_by_hand() -> None:
    """Singular values 3 and 1: shares 3/4 and 1/4."""
    z = torch.tensor([[3.0, 0.0], [0.0, 1.0]])
    assert rankme(z).item() == pytest.approx((4 / 3) ** 0.75 * 4**0.25, rel=1e-5)


def test_rankme_of_a_dead_embedding_is_one() -> None:
    assert rankme(torch.zeros(5, 4)).item() == pytest.approx(1, abs=1e-4)

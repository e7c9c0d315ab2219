import pytest
import torch

from selfsup.parts.reconstruction import masked_mse, masked_smooth_l1


def test_masked_mse_by_hand() -> None:
    """In single precision: in half precision, 1000 squared would be infinite."""
    target = torch.tensor([[[1.0, 3.0]], [[0.0, 1000.0]]], dtype=torch.float16)
    assert masked_mse(torch.zeros_like(target), target).item() == pytest.approx(((1 + 9) / 2 + 1e6 / 2) / 2)


@pytest.mark.parametrize(("beta", "errors"), [(0.0, (1.0, 3.0)), (2.0, (1 / 4, 3 - 1))])
def test_masked_smooth_l1_by_hand(beta: float, errors: tuple[float, float]) -> None:
    """A square over 2 beta up to beta, then a line less beta / 2."""
    target = torch.tensor([[1.0, 3.0], [0.0, 0.0]], dtype=torch.float16)
    weight = torch.tensor([0.25, 0.75])
    loss = masked_smooth_l1(torch.zeros_like(target), target, weight, beta=beta)
    assert loss.item() == pytest.approx(0.25 * sum(errors) / 2)

import pytest
import torch

from selfsup.parts.reconstruction import masked_mse


def test_masked_mse_by_hand() -> None:
    """In single precision: in half precision, 1000 squared would be infinite."""
    target = torch.tensor([[[1.0, 3.0]], [[0.0, 1000.0]]], dtype=torch.float16)
    assert masked_mse(torch.zeros_like(target), target).item() == pytest.approx(((1 + 9) / 2 + 1e6 / 2) / 2)

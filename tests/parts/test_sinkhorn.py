import pytest
import torch
from lightly.loss.swav_loss import sinkhorn as lightlys

from selfsup.parts.sinkhorn import sinkhorn


@pytest.mark.parametrize("iterations", [1, 3, 10])
def test_codes_are_lightlys(iterations: int) -> None:
    scores = torch.nn.functional.normalize(torch.randn(20, 7), dim=1)
    ours = sinkhorn(scores, epsilon=0.05, iterations=iterations)
    torch.testing.assert_close(ours, lightlys(scores, iterations=iterations, epsilon=0.05))


def test_prototypes_are_used_equally_and_nothing_overflows() -> None:
    torch.manual_seed(0)
    codes = sinkhorn(100 * torch.randn(32, 4), epsilon=20.0, iterations=200)
    torch.testing.assert_close(codes.sum(1), torch.ones(32))
    torch.testing.assert_close(codes.sum(0), torch.full((4,), 8.0), rtol=0.02, atol=0)


def test_rows_that_take_no_part_are_zero_and_change_nothing() -> None:
    torch.manual_seed(0)
    scores, valid = torch.nn.functional.normalize(torch.randn(20, 7), dim=1), torch.rand(20) < 0.5
    ours = sinkhorn(scores, epsilon=torch.tensor(0.05), iterations=3, valid=valid)
    torch.testing.assert_close(ours[valid], lightlys(scores[valid], iterations=3, epsilon=0.05))
    assert not ours[~valid].any()
    assert not sinkhorn(scores, epsilon=0.05, iterations=3, valid=torch.zeros(20, dtype=torch.bool)).any()

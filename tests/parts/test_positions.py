import pytest
import torch
from lightly.models.utils import get_2d_sincos_pos_embed

from selfsup.parts.positions import sincos


@pytest.mark.parametrize(("side", "dim"), [(14, 384), (8, 192), (3, 512)])
def test_sincos_is_that_of_mae(side: int, dim: int) -> None:
    expected = torch.from_numpy(get_2d_sincos_pos_embed(dim, side, cls_token=False)).float()
    torch.testing.assert_close(sincos((side, side), dim), expected, rtol=0, atol=1e-6)


def test_the_first_half_says_the_column_and_the_second_the_row() -> None:
    position = sincos((2, 3), 8).unflatten(0, (2, 3))
    assert position[0, :, :4].equal(position[1, :, :4])
    assert position[:, 0, 4:].equal(position[:, 2, 4:])
    one, two, small = torch.tensor(1.0), torch.tensor(2.0), torch.tensor(0.01)  # 10000 ** -(1/2)
    torch.testing.assert_close(
        position[1, 2, :4], torch.stack([two.sin(), (2 * small).sin(), two.cos(), (2 * small).cos()])
    )
    torch.testing.assert_close(position[1, 2, 4:], torch.stack([one.sin(), small.sin(), one.cos(), small.cos()]))


def test_a_width_that_four_does_not_divide_is_refused() -> None:
    with pytest.raises(AssertionError, match="4k channels"):
        sincos((2, 2), 10)


def test_one_axis_has_all_channels_and_three_share_them() -> None:
    two, small = torch.tensor(2.0), torch.tensor(0.02)
    torch.testing.assert_close(sincos((3,), 4)[2], torch.stack([two.sin(), small.sin(), two.cos(), small.cos()]))
    three = sincos((2, 3, 4), 16).unflatten(0, (2, 3, 4))  # parts of 6, the last cut to 4
    assert three[:, :, 1, :6].unique(dim=0).shape[0] == 1
    assert three[0, 0, 0].tolist() == [0.0] * 3 + [1.0] * 3 + [0.0] * 3 + [1.0] * 3 + [0.0] * 3 + [1.0]
    assert three[1, 2, 3, 12:15].equal(sincos((2,), 6)[1, :3])

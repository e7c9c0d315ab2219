"""Batch normalization in groups against torch's own layer on each group by itself."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfsup.parts import norms

SAMPLES, VIEWS = 8, 3


def members(group: int, groups: int) -> list[int]:
    """The rows of the group's samples, which are consecutive, in three views one after the other."""
    own = SAMPLES // groups
    return [view * SAMPLES + group * own + row for view in range(VIEWS) for row in range(own)]


def apart(layer: nn.Module, x: Tensor, groups: int) -> Tensor:
    """Return what torch makes of each group by itself."""
    value = torch.empty_like(x)
    for rows in (torch.tensor(members(group, groups)) for group in range(groups)):
        one = F.batch_norm(x[rows], None, None, layer.weight, layer.bias, training=True)
        value = value.index_copy(0, rows, one)
    return value


@pytest.mark.parametrize("groups", [2, 4])
@pytest.mark.parametrize(("kind", "shape"), [(nn.BatchNorm1d, (5,)), (nn.BatchNorm2d, (5, 3, 2))])
def test_each_group_is_normalized_by_itself(kind: type, shape: tuple[int, ...], groups: int) -> None:
    torch.manual_seed(0)
    expected, model = kind(5).double(), nn.Sequential(kind(5).double())
    nn.init.normal_(expected.weight)
    model[0].load_state_dict(expected.state_dict())
    norms.convert(model, groups, SAMPLES // groups)
    x = 4 + 3 * torch.randn(VIEWS * SAMPLES, *shape, dtype=torch.float64)
    x = x.to(memory_format=torch.channels_last) if x.ndim == 4 else x
    theirs, ours = x.clone().requires_grad_(), x.clone().requires_grad_()
    value, target = model(ours), torch.randn_like(x)
    torch.testing.assert_close(value, apart(expected, theirs, groups))
    (value * target).sum().backward()
    (apart(expected, theirs, groups) * target).sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad)
    torch.testing.assert_close(model[0].weight.grad, expected.weight.grad)


def test_running_statistics_are_the_mean_over_groups() -> None:
    torch.manual_seed(0)
    layers, model = [nn.BatchNorm1d(5) for _ in range(2)], nn.Sequential(nn.BatchNorm1d(5))
    norms.convert(model, 2, 4)
    for _ in range(3):
        x = 4 + 3 * torch.randn(VIEWS * SAMPLES, 5)
        for group, layer in enumerate(layers):
            layer(x[members(group, 2)])
        model(x)
    for name in ("running_mean", "running_var"):
        expected = torch.stack([getattr(layer, name) for layer in layers]).mean(0)
        torch.testing.assert_close(getattr(model[0], name), expected)
    assert model[0].num_batches_tracked == 3


def test_the_samples_of_a_group_alone_move_each_other() -> None:
    model, x = nn.Sequential(nn.BatchNorm1d(2)), torch.randn(SAMPLES, 2)
    norms.convert(model, 4, 2)
    before = model(x)
    x[:2] += torch.randn(2, 2)  # a quarter
    moved = (model(x) != before).any(1)
    assert moved.tolist() == [True] * 2 + [False] * 6


@pytest.mark.parametrize("keep", [norms.keep_whole, norms.keep_alike])
def test_what_is_kept_is_in_no_group(keep: Callable[[nn.Module], None]) -> None:
    model, x = (
        nn.ModuleDict({"own": nn.Sequential(nn.BatchNorm1d(2)), "key": nn.Sequential(nn.BatchNorm1d(2))}),
        torch.randn(8, 2),
    )
    whole = model["key"](x)
    keep(model["key"])
    norms.convert(model, 4, 2)
    assert model["key"](x).equal(whole)
    assert not model["own"](x).allclose(whole)


def test_names_of_weights_and_statistics_stay() -> None:
    model = nn.Sequential(nn.BatchNorm2d(4))
    before = model.state_dict()
    norms.convert(model, 2, 2)
    assert model.state_dict().keys() == before.keys()

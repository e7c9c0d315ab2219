import torch
from lightly.models.modules import SimCLRProjectionHead
from torch import nn

from selfsup.parts.heads import projector, xavier_linears


def test_the_projector_is_lightlys() -> None:
    ours, theirs = projector(16, 32, 8), SimCLRProjectionHead(16, 32, 8)
    ours.load_state_dict(theirs.layers.state_dict())
    x = torch.randn(10, 16)
    torch.testing.assert_close(ours(x), theirs(x))


def test_xavier_linears_are_uniform_up_to_the_bound() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(300, 100), nn.LayerNorm(100), nn.Linear(100, 200, bias=False))
    xavier_linears(module)
    for layer, bound in ((module[0], (6 / 400) ** 0.5), (module[2], (6 / 300) ** 0.5)):
        assert 0.99 * bound < layer.weight.abs().max() <= bound
        assert abs(layer.weight.std().item() / (bound / 3**0.5) - 1) < 0.02  # the deviation of a uniform variable
    assert not module[0].bias.any()

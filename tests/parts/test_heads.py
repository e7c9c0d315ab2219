import pytest
import torch
from lightly.models.modules import heads
from torch import nn

from selfsup.parts.heads import Prototypes, dino_head, gelu_mlp, mlp, xavier_linears


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (mlp(16, 32, 8, out="norm"), heads.SimCLRProjectionHead(16, 32, 8)),
        (mlp(16, 32, 32, 8, out="norm"), heads.NNCLRProjectionHead(16, 32, 8)),
        (mlp(16, 32, 8, norm=False, out="bias"), heads.MoCoProjectionHead(16, 32, 8)),
        (mlp(16, 32, 8, out="plain norm"), heads.MoCoProjectionHead(16, 32, 8, num_layers=2, batch_norm=True)),
        (mlp(16, 32, 8, out="bias"), heads.SwaVProjectionHead(16, 32, 8)),
    ],
    ids=["SimCLR", "NNCLR", "MoCo v2", "MoCo v3", "SwAV"],
)
def test_heads_are_lightlys(ours: nn.Sequential, theirs: nn.Module) -> None:
    """Where theirs has a bias before a batch normalisation, it is without effect."""
    state = theirs.layers.state_dict()
    ours.load_state_dict({name: state[name] for name in ours.state_dict()})
    x = torch.randn(10, 16)
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore:.*weight_norm.*is deprecated:FutureWarning")  # theirs
@pytest.mark.parametrize("norm", [False, True])
def test_dinos_head_is_lightlys(norm: bool) -> None:
    """Ours has a bias before a batch normalisation, where it is without effect; it begins at zero."""
    ours = dino_head(16, 32, 8, 20, norm=norm)
    theirs = heads.DINOProjectionHead(16, 32, 8, 20, batch_norm=norm)
    ours.load_state_dict(theirs.layers.state_dict(), strict=False)
    ours[-1].load_state_dict({"weight": theirs.last_layer.weight_v})
    x = torch.randn(10, 16)
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-4, atol=1e-5)


def test_a_gelu_mlp_ends_in_a_plain_layer() -> None:
    kinds = [nn.Linear, nn.BatchNorm1d, nn.GELU, nn.Linear, nn.BatchNorm1d, nn.GELU, nn.Linear]
    assert [type(layer) for layer in gelu_mlp(16, 32, 32, 8, norm=True)] == kinds
    assert [type(layer) for layer in gelu_mlp(16, 32, 32, 8)] == [kind for kind in kinds if kind != nn.BatchNorm1d]


def test_prototypes_compare_by_cosine() -> None:
    prototypes, x = Prototypes(4, 3), torch.randn(5, 4)
    expected = torch.stack([nn.functional.cosine_similarity(x, row[None]) for row in prototypes.weight], dim=1)
    torch.testing.assert_close(prototypes(x), expected)


def test_xavier_linears_are_uniform_up_to_the_bound() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(300, 100), nn.LayerNorm(100), nn.Linear(100, 200, bias=False))
    xavier_linears(module)
    for layer, bound in ((module[0], (6 / 400) ** 0.5), (module[2], (6 / 300) ** 0.5)):
        assert 0.99 * bound < layer.weight.abs().max() <= bound
        assert abs(layer.weight.std().item() / (bound / 3**0.5) - 1) < 0.02  # the deviation of a uniform variable
    assert not module[0].bias.any()

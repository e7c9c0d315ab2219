import pytest
import torch
from lightly.models.modules import heads
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

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
    """Where theirs has a bias before a batch normalization, it is without effect."""
    state = theirs.layers.state_dict()
    ours.load_state_dict({name: state[name] for name in ours.state_dict()})
    x = torch.randn(10, 16)
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore:.*weight_norm.*is deprecated:FutureWarning")  # theirs
@pytest.mark.parametrize("norm", [False, True])
def test_dinos_head_is_lightlys(norm: bool) -> None:
    """Ours has a bias before a batch normalization, where it is without effect; it begins at zero."""
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


def test_lengths_are_those_of_torchs_weight_norm() -> None:
    """In value and gradient, after its lengths have moved."""
    ours, theirs = Prototypes(4, 3, lengths=True), weight_norm(nn.Linear(4, 3, bias=False))
    g, v = theirs.parametrizations.weight.original0, theirs.parametrizations.weight.original1
    assert ours.lengths.shape == g.shape == (3, 1)
    g.data = torch.rand(3, 1) + 0.5
    ours.load_state_dict({"lengths": g.detach(), "weight": v.detach()})
    x = torch.randn(5, 4)
    out, expected = ours(x), theirs(nn.functional.normalize(x, dim=1))
    torch.testing.assert_close(out, expected)
    grads = torch.autograd.grad(out.square().sum(), [ours.lengths, ours.weight])
    torch.testing.assert_close(grads, torch.autograd.grad(expected.square().sum(), [g, v]))


def test_prototypes_begin_as_linear_layers_of_length_one() -> None:
    """Rows of 256 uniform numbers up to 1 / 16 have the norm sqrt(1 / 3) on average; their lengths are 1."""
    prototypes = Prototypes(256, 100, lengths=True)
    assert prototypes.weight.abs().max() <= 1 / 16
    assert prototypes.weight.norm(dim=1).mean().item() == pytest.approx(3**-0.5, rel=0.02)
    assert prototypes.lengths.tolist() == [[1.0]] * 100


def test_cosines_are_exact_whatever_precision_the_step_has() -> None:
    prototypes, x = Prototypes(16, 9, lengths=True), torch.randn(7, 16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        in_bf16 = prototypes(x)
    assert in_bf16.equal(prototypes(x))
    assert prototypes(x.bfloat16()).dtype == torch.float32


def test_xavier_linears_are_uniform_up_to_the_bound() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(300, 100), nn.LayerNorm(100), nn.Linear(100, 200, bias=False))
    xavier_linears(module)
    for layer, bound in ((module[0], (6 / 400) ** 0.5), (module[2], (6 / 300) ** 0.5)):
        assert 0.99 * bound < layer.weight.abs().max() <= bound
        assert abs(layer.weight.std().item() / (bound / 3**0.5) - 1) < 0.02  # the deviation of a uniform variable
    assert not module[0].bias.any()

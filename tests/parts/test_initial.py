"""Initial weights by their distributions, worked out by hand."""

import pytest
import torch
from timm.layers import DropPath
from torch import nn

from selfsup.encoder import build
from selfsup.parts import initial
from selfsup.sections import Backbone

VIT = Backbone(name="vit_tiny_patch16_224", image_size=64, depth=3, positions="learned", drop_path=0.3)
REGISTERS = Backbone(name="vit_small_patch14_reg4_dinov2", image_size=28, width=192, depth=1, positions="learned")
RESNET = Backbone(name="resnet50", image_size=32, width=8)
OTHERS = [RESNET, Backbone(name="convnext_atto", image_size=32)]


def deviation(weight: torch.Tensor) -> float:
    assert abs(weight.mean().item()) < 4 * weight.std().item() / weight.numel() ** 0.5
    return weight.std().item()


def test_a_vit_deviates_by_a_fiftieth() -> None:
    """Glorot's bound has sqrt(2 / (192 + 576)) = 0.051 for queries, keys and values, and 0.046 for the MLP."""
    torch.manual_seed(0)
    trunk = build(VIT, initial.truncated_normal).trunk
    for layer in (trunk.blocks[0].attn.qkv, trunk.blocks[1].attn.proj, trunk.blocks[2].mlp.fc2):
        assert deviation(layer.weight) == pytest.approx(0.02, rel=0.02)
        assert not layer.bias.any()
    assert deviation(trunk.pos_embed) == pytest.approx(0.02, rel=0.05)
    assert deviation(trunk.cls_token) == pytest.approx(0.02, rel=0.2)
    assert trunk.norm.weight.eq(1).all()


def test_its_patches_begin_as_a_convolution_of_pytorch() -> None:
    """Uniform up to 1 / sqrt(3 * 16 * 16), weights and biases alike."""
    proj = build(VIT, initial.truncated_normal).trunk.patch_embed.proj
    for weight in (proj.weight, proj.bias):
        assert 0.95 * 768**-0.5 < weight.abs().max() <= 768**-0.5


def test_tokens_deviate_as_asked() -> None:
    trunk = build(REGISTERS, lambda trunk: initial.truncated_normal(trunk, tokens=1e-6)).trunk
    for token in (trunk.cls_token, trunk.reg_token):
        assert deviation(token) == pytest.approx(1e-6, rel=0.2)
    assert deviation(trunk.pos_embed) == pytest.approx(0.02, rel=0.1)


def test_msns_patches_deviate_by_their_fan_in() -> None:
    trunk = build(VIT, initial.kaiming_patches).trunk
    assert deviation(trunk.patch_embed.proj.weight) == pytest.approx((2 / 768) ** 0.5, rel=0.02)
    assert not trunk.patch_embed.proj.bias.any()


def test_mocov3s_queries_keys_and_values_are_matrices_of_their_own() -> None:
    """Glorot's bound of 192 x 192 is sqrt(6 / 384), and of the whole 576 x 192 no more than sqrt(6 / 768)."""
    trunk = build(VIT, initial.mocov3).trunk
    assert 0.99 * (6 / 384) ** 0.5 < trunk.blocks[1].attn.qkv.weight.abs().max() <= (6 / 384) ** 0.5
    assert trunk.blocks[1].attn.proj.weight.abs().max() <= (6 / 384) ** 0.5
    assert deviation(trunk.cls_token) == pytest.approx(1e-6, rel=0.2)
    assert not trunk.patch_embed.proj.bias.any()


def test_residual_branches_of_a_resnet_count_from_the_start() -> None:
    def last(trunk: nn.Module) -> list[float]:
        return [block.bn3.weight.sum().item() / len(block.bn3.weight) for block in trunk.layer1]

    assert last(build(RESNET).trunk) == [0.0, 0.0, 0.0]
    assert last(build(RESNET, initial.unit_residuals).trunk) == [1.0, 1.0, 1.0]


def test_deep_blocks_begin_small_as_beits() -> None:
    torch.manual_seed(0)
    trunk = build(VIT, initial.beit).trunk
    cut = 0.02 * 0.5396  # the deviation of a normal distribution within one deviation
    for number, block in enumerate(trunk.blocks, start=1):
        deviations = [
            deviation(layer.weight) for layer in (block.attn.qkv, block.mlp.fc1, block.attn.proj, block.mlp.fc2)
        ]
        small = cut / (2 * number) ** 0.5
        assert deviations == pytest.approx([cut, cut, small, small], rel=0.05)
        assert block.mlp.fc1.weight.abs().max() <= 0.02
    assert deviation(trunk.patch_embed.proj.weight) == pytest.approx(cut, rel=0.05)


RULES = (initial.beit, initial.truncated_normal, initial.kaiming_patches, initial.mocov3, initial.hiera)


@pytest.mark.parametrize(("rule", "backbone"), [(rule, other) for rule in RULES for other in OTHERS])
def test_rules_of_vits_leave_others_as_they_are(rule, backbone: Backbone) -> None:
    torch.manual_seed(0)
    plain = build(backbone).trunk.state_dict()
    torch.manual_seed(0)
    assert all(value.equal(plain[name]) for name, value in build(backbone, rule).trunk.state_dict().items())


def test_drop_path_is_even() -> None:
    trunk = build(VIT).trunk
    initial.even_drop_path(trunk)
    rates = [[module.drop_prob for module in block.modules() if isinstance(module, DropPath)] for block in trunk.blocks]
    assert rates == [[pytest.approx(0.3)] * 2] * 3
    without = build(VIT.model_copy(update={"drop_path": 0.0})).trunk
    initial.even_drop_path(without)
    assert not any(isinstance(module, DropPath) for module in without.modules())

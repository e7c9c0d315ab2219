"""Models of timm by what they are: which class takes tokens, what pooled encoders see, what is refused and why."""

from contextlib import nullcontext

import pytest
import torch

from selfsup.conflicts import Conflict, _backbone_effect
from selfsup.encoder import build
from selfsup.errors import SpecError
from selfsup.pipelines.feasible import check_images
from selfsup.sections import Backbone, image_shape


def images(n: int = 3, size: int = 64) -> torch.Tensor:
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(0))


def same(a: torch.Tensor, b: torch.Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


KINDS = {  # by class, whatever the name says
    "vit_tiny_patch16_224": True,
    "deit_small_patch16_224": True,
    "deit3_small_patch16_224": True,
    "vit_small_patch14_reg4_dinov2": True,
    "beit_base_patch16_224": True,
    "eva02_tiny_patch14_224": True,
    "vit_small_patch16_dinov3": True,
    "deit_tiny_distilled_patch16_224": False,
    "vit_tiny_r_s16_p8_224": False,
    "crossvit_tiny_240": False,
    "fastvit_t8": False,
    "mobilevit_xxs": False,
    "maxvit_tiny_tf_224": False,
    "swin_tiny_patch4_window7_224": False,
    "resnet18": False,
    "vit_smal_patch16_224": False,
}


@pytest.mark.parametrize(("name", "tokens"), KINDS.items())
def test_the_class_of_a_model_says_what_it_takes(name: str, tokens: bool) -> None:
    assert Backbone(name=name).is_vit is tokens


@pytest.mark.parametrize(("name", "idle"), [("vit_tiny_patch16_224", False), ("vit_small_patch16_dinov3", True)])
def test_position_embeddings_are_no_knob_of_a_vit_whose_attention_has_the_positions(name: str, idle: bool) -> None:
    assert ("positions" in Backbone(name=name).idle) is idle
    conflicts = list(_backbone_effect(Backbone(name=name, positions="learned")))
    expected = Conflict(("backbone.positions",), f"has no effect on {name}: its attention has them; leave it out")
    assert conflicts == ([expected] if idle else [])


def test_maps_that_end_in_their_channels_are_turned() -> None:
    swin = build(Backbone(name="swin_tiny_patch4_window7_224", image_size=64)).eval()
    found = swin.spatial(images())
    assert found.shape == (3, 768, 2, 2)
    same(found.permute(0, 2, 3, 1), swin.trunk.forward_features(images()))
    same(found.mean((2, 3)), swin.pooled(images()))
    assert [stage.shape[1:] for stage in swin.stages(images())] == [
        (96, 16, 16), (192, 8, 8), (384, 4, 4), (768, 2, 2)
    ]  # fmt: skip


UNSEEN = {  # name, size: what the error says
    (
        "bat_resnext26ts",
        224,
    ): r"cannot see images of 224 pixels: non_local_attn\.py of timm demands .*its own size is 256",
    ("halonet26t", 224): r"cannot see images of 224 pixels: halo_attn\.py of timm demands `_assert\(H % self",
    ("inception_v3", 32): r"cannot see images of 32 pixels: .*Kernel size.*its own size is 299",
    ("crossvit_tiny_240", 96): r"cannot see images of 96 pixels: .*broadcast.*its own size is 240, or choose a model",
    ("mobilevit_xxs", 224): "",
    ("lambda_resnet26t", 64): "",
    ("botnet26t_256", 64): "",
    ("mixer_s32_224", 64): "",
}


@pytest.mark.parametrize(("asked", "message"), UNSEEN.items(), ids=[name for name, _ in UNSEEN])
def test_sizes_that_a_model_cannot_see_are_refused_with_the_reason(asked: tuple[str, int], message: str) -> None:
    name, size = asked
    refused = pytest.raises(SpecError, match=rf"(?s)backbone\.name: {name} {message}") if message else nullcontext()
    with refused:
        backbone = Backbone(name=name, image_size=size)
        check_images(backbone, image_shape(backbone), ((size, size),))

"""What each objective's encoder begins with, and how it resizes positions, as its authors' code does."""

import pytest
import torch
import torch.nn.functional as F

from selfsup.encoder import build
from selfsup.method import load, names
from selfsup.sections import Backbone

GLOROT, APART = (2 / 192) ** 0.5, (2 / 96) ** 0.5  # of 144 x 48 queries, keys and values together, and of each alone
GROUPED = (2 / 112) ** 0.5  # of the 64 x 48 embedding of groups of points, in place of patches
CUT = 0.02 * 0.54  # of a normal distribution that is cut at its own deviation
STARTS = {  # deviations of queries, keys and values; of the 48 x 48 patch embedding; of the class token
    "dino": (0.02, 144**-0.5, 0.02),
    "ibot": (0.02, 144**-0.5, 0.02),
    "dinov2": (0.02, 144**-0.5, 1e-6),
    "dinov3": (0.02, 144**-0.5, 0.02),
    "simdino": (0.02, 144**-0.5, 0.02),
    "simdinov2": (0.02, 144**-0.5, 1e-6),
    "maskfeat": (0.02, 0.02, 0.02),
    "msn": (0.02, (2 / 48) ** 0.5, 0.02),
    "ijepa": (0.02, 0.02, 0.02),
    "beit": (CUT, CUT, CUT),
    "cae": (GLOROT, CUT, CUT),
    "data2vec": (CUT, CUT, CUT),
    "ropim": (CUT, CUT, CUT),
    "flexpredict": (0.02, 0.02, 0.02),
    "nepa": (0.02, 0.02, 0.02),
    "salt": (0.02, 0.02, 0.02),
    "simmim": (CUT, CUT, CUT),
    "mocov3": (APART, (2 / 96) ** 0.5, 1e-6),
    "cubic_puzzles": (GLOROT, (2 / 144) ** 0.5, 0.02),  # of two frames: 48 x 96
    "random_walk": (GLOROT, (2 / 144) ** 0.5, 0.02),
    "gdt": (GLOROT, (2 / 144) ** 0.5, 0.02),
    "depthcontrast": (GLOROT, GROUPED, 0.02),
    "pointcontrast": (GLOROT, GROUPED, 0.02),
}
UNIT = (
    "deepcluster",
    "densecl",
    "dino",
    "moco",
    "obow",
    "pirl",
    "sela",
    "simdino",
    "swav",
)  # torchvision's default, in their code
OFFSETS = {"dino": 0.1, "ibot": 0.1, "dinov2": 0.1, "simdino": 0.1, "simdinov2": 0.1}


@pytest.mark.parametrize("name", [name for name in names() if "vit" in load(name).backbones])
def test_a_vit_begins_as_the_authors(name: str, setting) -> None:
    trunk = setting(name, "vit")[0].backbone.trunk
    qkv, patches, token = STARTS.get(name, (GLOROT, (2 / 96) ** 0.5, 0.02))
    assert trunk.blocks[0].attn.qkv.weight.std().item() == pytest.approx(qkv, rel=0.05)
    assert trunk.patch_embed.proj.weight.std().item() == pytest.approx(patches, rel=0.08)
    assert trunk.cls_token.std().item() == pytest.approx(token, rel=0.35)


def test_a_vit_begins_as_the_backbone_where_a_spec_says_so() -> None:
    sizes = {"name": "vit_tiny_patch16_224", "image_size": 16, "patch_size": 4, "width": 48, "depth": 1, "heads": 3}
    trunk = build(Backbone(**sizes, init="backbone"), load("dino").initialize).trunk
    assert trunk.blocks[0].attn.qkv.weight.std().item() == pytest.approx(GLOROT, rel=0.05)


@pytest.mark.parametrize(
    ("name", "encoder", "scale"),
    [("data2vec", "beit_base_patch16_224", 1e-4), ("simdinov2", "vit_small_patch14_dinov2", 0.1)],
)
def test_what_blocks_add_begins_scaled_as_the_authors(name: str, encoder: str, scale: float) -> None:
    sizes = {"image_size": 28, "patch_size": 14, "width": 48, "depth": 1, "heads": 3}
    trunk = build(Backbone(name=encoder, **sizes), load(name).initialize).trunk
    scales = [weight for name, weight in trunk.named_parameters() if "gamma" in name]
    assert [weight.unique().tolist() for weight in scales] == [[pytest.approx(scale)]] * 2


@pytest.mark.parametrize("name", [name for name in names() if "cnn" in load(name).backbones])
def test_residual_branches_begin_as_the_authors(name: str, setting) -> None:
    trunk = setting(name, "cnn")[0].backbone.trunk
    assert trunk.layer3[1].bn2.weight.unique().tolist() == [1.0 if name in UNIT else 0.0]


@pytest.mark.parametrize("name", [*OFFSETS, "msn"])
def test_small_crops_have_positions_as_the_authors(name: str, setting) -> None:
    """4 x 4 places to 2 x 2, by PyTorch at the scale of the authors; MSN's is that of the sizes."""
    method, batch = setting(name, local_size=8)
    small, scale = batch.views[2].value, (2 + OFFSETS.get(name, 0.0)) / 4
    for encoder in (method.backbone, method.teacher):
        position = encoder.position.detach()
        whole = position[:, 1:].unflatten(1, (4, 4)).permute(0, 3, 1, 2)
        resized = F.interpolate(whole, scale_factor=scale, mode="bicubic").flatten(2).mT
        assert resized.shape == (1, 4, 48)
        other = build(Backbone(name="vit_tiny_patch16_224", image_size=8, patch_size=4, width=48, depth=2, heads=3))
        own = {"pos_embed": torch.cat([position[:, :1], resized], dim=1)}
        other.trunk.load_state_dict(encoder.trunk.state_dict() | own)
        torch.testing.assert_close(encoder(small), other(small), rtol=1e-4, atol=1e-5)

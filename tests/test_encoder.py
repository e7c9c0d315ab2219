"""Encoders against timm itself: same weights, same numbers."""

from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from selfsup.encoder import PooledEncoder, TokenEncoder, build, timm_kwargs
from selfsup.errors import CheckpointError, SpecError
from selfsup.parts.patch import patchify
from selfsup.parts.positions import sincos
from selfsup.saved import read_encoder, restore_encoder, save_encoder
from selfsup.sections import Backbone

SMALL = {"image_size": 32, "patch_size": 8, "width": 48, "depth": 2, "heads": 3}
VIT = Backbone(name="vit_tiny_patch16_224", **SMALL)
CNN = Backbone(name="resnet18", image_size=32, stem="small")
NAMES = [  # plain; positions for patches only; registers and layer scale; a norm before the blocks; no class token
    ("vit_tiny_patch16_224", "cls"),
    ("vit_tiny_patch16_224", "mean"),
    ("deit3_small_patch16_224", "cls"),
    ("vit_small_patch14_reg4_dinov2", "mean"),
    ("vit_base_patch32_clip_224", "cls"),
    ("vit_base_patch16_siglip_224", "mean"),
]


def images(n: int = 3, size: int = 32) -> torch.Tensor:
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(0))


def vary(module: nn.Module) -> None:
    """Nothing at zero or one: an omitted bias, scale or position shows."""
    torch.manual_seed(1)
    for parameter in module.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)


def same(a: torch.Tensor, b: torch.Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("name", "pool"), NAMES)
@pytest.mark.parametrize("positions", ["learned", "sincos"])
def test_a_vit_is_timms(name: str, pool: str, positions: str) -> None:
    backbone = Backbone(name=name, pool=pool, positions=positions, **SMALL)
    encoder = build(backbone)
    vary(encoder)
    theirs = timm.create_model(**timm_kwargs(backbone))
    theirs.load_state_dict(encoder.trunk.state_dict(), strict=True)
    tokens = patchify(images(), 8)
    same(encoder(tokens), theirs.forward_features(images()))
    same(encoder.pooled(tokens), theirs(images()))


def test_places_and_stages_are_timms() -> None:
    vit, cnn = build(VIT), build(CNN)
    vary(vit)
    vary(cnn)
    vit.eval(), cnn.eval()
    hidden = vit(patchify(images(), 8))
    assert vit.spatial(patchify(images(), 8)).permute(0, 2, 3, 1).reshape(3, 16, 48).equal(hidden[:, 1:])
    same(cnn.spatial(images()).mean((2, 3)), cnn.pooled(images()))
    stages = cnn.stages(images())
    assert [stage.shape[1] for stage in stages] == cnn.widths
    same(stages[-1], cnn.spatial(images()))


def test_several_class_tokens_are_averaged() -> None:
    """timm's registers carry the others: the same tokens, and the mean of the first ones stands for an image."""
    encoder, one = build(VIT.model_copy(update={"class_tokens": 3})), build(VIT)
    assert isinstance(encoder, TokenEncoder)
    assert encoder.position[0, :3].count_nonzero() == 0
    assert encoder.position[0, 2:].equal(one.position[0])  # zero, then sines and cosines
    vary(encoder)
    hidden, tokens = encoder.eval().trunk.forward_features(images()), patchify(images(), 8)
    same(encoder.pooled(tokens), hidden[:, :3].mean(dim=1))
    same(encoder.spatial(tokens).flatten(2).mT, hidden[:, 3:])
    names = "vit_small_patch14_reg4_dinov2", "beit_base_patch16_224"
    for name in names:
        with pytest.raises(SpecError, match="has no class token, or registers beside it"):
            build(Backbone(name=name, class_tokens=2))
    with pytest.raises(SpecError, match="no mean of class tokens: export it with --to torch"):
        timm_kwargs(VIT.model_copy(update={"class_tokens": 2}))


def test_a_smaller_crop_is_seen_at_resized_positions() -> None:
    """timm resizes the same way, but for antialiasing, which is without effect between equal sizes."""
    encoder = build(VIT)
    vary(encoder)
    small = encoder(patchify(images(size=16), 8))
    assert small.shape == (3, 5, 48)
    whole = encoder.position[0, 1:].unflatten(0, (4, 4)).permute(2, 0, 1)[None]
    resized = torch.nn.functional.interpolate(whole, size=(2, 2), mode="bicubic")[0].flatten(1).T
    other = build(VIT.model_copy(update={"image_size": 16}))
    state = encoder.trunk.state_dict()
    other.trunk.load_state_dict(state | {"pos_embed": torch.cat([state["pos_embed"][:, :1], resized[None]], dim=1)})
    same(small, other(patchify(images(size=16), 8)))


def test_positions_are_resized_with_an_offset_as_dinos_are() -> None:
    """4 places a side to 2 at the scale of (2 + 0.1) / 4: place i is at (i + 0.5) * 4 / 2.1 - 0.5 of the 4.

    Weights there are those of Keys's cubic with a = -0.75, by distance; places beyond the edge are the edge's.
    """

    def weight(x: float) -> float:
        x = abs(x)
        if x <= 1:
            return (1.25 * x - 2.25) * x * x + 1
        return -0.75 * (((x - 5) * x + 8) * x - 4) if x < 2 else 0.0

    rows = torch.zeros(2, 4)
    for new in range(2):
        place = (new + 0.5) * 4 / 2.1 - 0.5
        for tap in range(int(place) - 1, int(place) + 3):
            rows[new, min(max(tap, 0), 3)] += weight(place - tap)
    encoder = build(VIT)
    vary(encoder)
    encoder.position_offset = 0.1
    expected = torch.einsum("ij,kl,jld->ikd", rows, rows, encoder.position[0, 1:].unflatten(0, (4, 4))).flatten(0, 1)
    other = build(VIT.model_copy(update={"image_size": 16}))
    state = encoder.trunk.state_dict()
    other.trunk.load_state_dict(state | {"pos_embed": torch.cat([state["pos_embed"][:, :1], expected[None]], dim=1)})
    tokens = patchify(images(size=16), 8)
    same(encoder(tokens), other(tokens))
    encoder.position_offset = 0.0
    assert (encoder(tokens) - other(tokens)).abs().max() > 1e-3


def test_covered_tokens_are_all_one_vector_at_their_places() -> None:
    encoder, tokens = build(VIT), patchify(images(), 8)
    vary(encoder)
    covered, vector = torch.rand(3, 16) < 0.5, torch.randn(48)
    out = encoder(tokens, cover=(covered, vector))
    other = tokens._replace(value=tokens.value.masked_fill(covered[..., None], 7.0))
    assert encoder(other, cover=(covered, vector)).equal(out)
    assert encoder(tokens, cover=(torch.zeros_like(covered), vector)).equal(encoder(tokens))
    assert not encoder(tokens, cover=(covered, 2 * vector)).equal(out)


@pytest.mark.parametrize(("name", "pool"), NAMES)
def test_only_kept_tokens_are_processed_each_at_its_own_place(name: str, pool: str) -> None:
    encoder = build(Backbone(name=name, pool=pool, **SMALL))
    vary(encoder)
    keep = torch.tensor([[3, 0, 9], [15, 1, 2], [7, 8, 6]])
    trunk, prefix = encoder.trunk, encoder.num_prefix
    whole = trunk._pos_embed(trunk.patch_embed(images()))  # timm's own order: positions first, then leave some out
    kept = torch.stack([sample[prefix + rows] for sample, rows in zip(whole, keep, strict=True)])
    expected = trunk.norm(trunk.blocks(trunk.norm_pre(torch.cat([whole[:, :prefix], kept], dim=1))))
    same(encoder(patchify(images(), 8), keep), expected)


def test_tokens_of_a_part_of_the_grid_are_as_those_that_are_kept() -> None:
    tokens, encoder = patchify(images(), 8), build(VIT)
    part = tokens._replace(value=tokens.value[:, 1:], coord=tokens.coord[:, 1:])
    same(encoder(part), encoder(tokens, torch.arange(1, 16).expand(len(part.value), -1)))


def test_sincos_positions_are_fixed_and_zero_at_the_class_token() -> None:
    position = build(VIT).position
    assert not position.requires_grad
    assert not position[0, 0].any()
    assert position[0, 1:].equal(sincos((4, 4), 48))


def test_learned_positions_are_trained() -> None:
    encoder = build(VIT.model_copy(update={"positions": "learned"}))
    encoder.pooled(patchify(images(), 8)).square().sum().backward()
    assert encoder.position.grad.abs().amin(dim=(0, 2)).min() > 0


def test_sizes_are_those_asked_for() -> None:
    encoder = build(Backbone(image_size=48, patch_size=12, width=96, depth=3, heads=4, drop_path=0.3))
    assert (encoder.dim, encoder.grid, encoder.patch, encoder.patch_values) == (96, (4, 4), 12, 432)
    assert [block.attn.num_heads for block in encoder.trunk.blocks] == [4, 4, 4]
    assert encoder.trunk.blocks[2].drop_path1.drop_prob == pytest.approx(0.3)


def test_a_vit_begins_as_maes_does() -> None:
    torch.manual_seed(0)
    trunk = build(Backbone(name="vit_tiny_patch16_224", depth=1)).trunk
    bounds = {"patch_embed.proj": 768 + 192, "blocks.0.attn.qkv": 192 + 3 * 192, "blocks.0.mlp.fc1": 192 + 768}
    for name, fans in bounds.items():
        weight, bound = trunk.get_submodule(name).weight, (6 / fans) ** 0.5
        assert 0.99 * bound < weight.abs().max() <= bound
    assert not trunk.blocks[0].attn.qkv.bias.any()
    assert trunk.cls_token.std().item() == pytest.approx(0.02, rel=0.2)


def test_an_objective_changes_initial_weights_but_not_given_ones(tmp_path: Path) -> None:
    def initialize(trunk: nn.Module) -> None:
        nn.init.constant_(trunk.blocks[0].attn.qkv.weight, 0.5)

    torch.manual_seed(0)
    plain = build(VIT).trunk.state_dict()
    torch.manual_seed(0)
    changed = build(VIT, initialize).trunk.state_dict()
    assert [name for name in plain if not plain[name].equal(changed[name])] == ["blocks.0.attn.qkv.weight"]
    path = tmp_path / "encoder.safetensors"
    save_encoder(build(VIT), VIT, path)
    given = build(VIT.model_copy(update={"weights": str(path)}), initialize).trunk.state_dict()
    assert given["blocks.0.attn.qkv.weight"].equal(load_file(path)["blocks.0.attn.qkv.weight"])


def test_a_seed_says_what_an_encoder_is() -> None:
    first, again, other = ((torch.manual_seed(seed), build(VIT).trunk.state_dict())[1] for seed in (0, 0, 1))
    assert all(value.equal(again[name]) for name, value in first.items())
    assert not first["blocks.0.attn.qkv.weight"].equal(other["blocks.0.attn.qkv.weight"])


@pytest.mark.parametrize(("width", "dim"), [(None, 512), (16, 128)])
def test_a_cnn_is_timms(width: int | None, dim: int) -> None:
    backbone = Backbone(name="resnet18", image_size=64, width=width)
    encoder = build(backbone).eval()
    theirs = timm.create_model(**timm_kwargs(backbone)).eval()
    theirs.load_state_dict(encoder.trunk.state_dict(), strict=True)
    assert encoder.dim == dim
    same(encoder.pooled(images(size=64)), theirs(images(size=64)))


@pytest.mark.parametrize("backbone", [CNN, Backbone(name="resnet50", image_size=32)], ids=["small", "imagenet"])
def test_every_convolution_is_channels_last(backbone: Backbone) -> None:
    encoder = build(backbone)
    convolutions = [module for module in encoder.modules() if isinstance(module, nn.Conv2d)]
    seen: list[bool] = []
    for module in convolutions:
        assert module.weight.is_contiguous(memory_format=torch.channels_last)
        module.register_forward_pre_hook(
            lambda _, given: seen.append(given[0].is_contiguous(memory_format=torch.channels_last))
        )
    encoder.pooled(images())
    assert seen == [True] * len(convolutions)


def test_the_small_stem_keeps_the_resolution() -> None:
    encoder = build(CNN)
    sizes: list[int] = []
    encoder.trunk.layer1.register_forward_pre_hook(lambda _, given: sizes.append(given[0].shape[-1]))
    assert encoder.pooled(images()).shape == (3, 512)
    assert sizes == [32]
    assert encoder.trunk.conv1.weight.shape == (64, 3, 3, 3)
    with pytest.raises(SpecError, match="--to torch"):
        timm_kwargs(CNN)


@pytest.mark.parametrize("backbone", [VIT, CNN], ids=["vit", "cnn"])
def test_an_encoder_survives_the_disk(backbone: Backbone, tmp_path: Path) -> None:
    encoder, path = build(backbone).eval(), tmp_path / "encoder.safetensors"
    vary(encoder)
    save_encoder(encoder, backbone, path)
    found = restore_encoder(path).eval()
    assert read_encoder(path)[0] == backbone
    view = patchify(images(), 8) if backbone is VIT else images()
    assert found.pooled(view).equal(encoder.pooled(view))
    assert load_file(path).keys() == encoder.trunk.state_dict().keys()
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_a_file_of_another_kind_is_no_encoder(tmp_path: Path) -> None:
    save_file({"x": torch.zeros(1)}, tmp_path / "other.safetensors")
    (tmp_path / "text.safetensors").write_text("no tensors")
    with pytest.raises(CheckpointError, match="does not say which backbone"):
        restore_encoder(tmp_path / "other.safetensors")
    for name in ("text.safetensors", "missing.safetensors"):
        with pytest.raises(CheckpointError, match="cannot read tensors"):
            restore_encoder(tmp_path / name)


WRONG = {
    "did you mean .*vit_small_patch16_224": {"name": "vit_smal_patch16_224"},
    r"timm\.list_models": {"name": "zzz"},
    "cannot build.*divisible by num_heads": {"width": 100},
    "has no class token": {"name": "vit_base_patch16_siglip_224", "depth": 1},
    "samples of 65 x 65 points do not divide into patches of 16": {"image_size": 65},
    "multiple of 4 channels, not 90": {"width": 90, "heads": 3},
    "small is made for ResNets": {"name": "convnext_atto", "stem": "small"},
    "width: it is for ViTs and for ResNets": {"name": "convnext_atto", "width": 16},
    r"there is no file /.*/nowhere\.pth": {"weights": "nowhere.pth"},
    "cannot load timm for .*No pretrained weights": {
        "name": "vit_small_patch16_18x2_224",
        "depth": 1,
        "weights": "timm",
    },
}


@pytest.mark.parametrize(("message", "told"), WRONG.items(), ids=[str(told) for told in WRONG.values()])
def test_a_backbone_that_cannot_be_is_refused(message: str, told: dict[str, object]) -> None:
    with pytest.raises(SpecError, match=message):
        build(Backbone(**told))


@pytest.mark.parametrize(("backbone", "kind"), [(VIT, TokenEncoder), (CNN, PooledEncoder)])
def test_an_encoder_can_be_built_without_memory(backbone: Backbone, kind: type) -> None:
    with torch.device("meta"):
        encoder = build(backbone)
    assert isinstance(encoder, kind)
    assert all(parameter.is_meta for parameter in encoder.parameters())

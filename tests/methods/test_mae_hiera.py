"""MAE on a Hiera against transformers' HieraForPreTraining, timm's masked forward, and the whole computation."""

import pytest
import torch
from transformers_hiera import noise, ours, reference, theirs

from selfsup.encoder import PooledEncoder, build
from selfsup.errors import SpecError
from selfsup.masks import RandomMask
from selfsup.method import load
from selfsup.parts.patch import unpatchify
from selfsup.pipelines.feasible import check_images
from selfsup.sections import Backbone, Setup, image_shape
from selfsup.spec import read

KNOBS = {"mask_block": 2, "mask_ratio": 0.6, "norm_pix_loss": True}
DECODER = {"decoder_width": 32, "decoder_depth": 1, "decoder_heads": 4}


@pytest.fixture(scope="module")
def fused(setting):
    """Return MAE with all of a Hiera's resolutions, no weight at 0 or 1, and a batch."""
    method, batch = setting("mae", "hiera", samples=4, double=True, multi_scale=True, **KNOBS, **DECODER)
    for weight in method.parameters():
        weight.data += 0.05 * torch.randn_like(weight)
    return method, batch.views[0].value, batch.views[0].mask, batch


def images(tokens) -> torch.Tensor:
    return unpatchify(tokens.value, grid=(6, 6), patch=8)


def kept(mask) -> torch.Tensor:
    """(B, 9) bool: the units that are seen."""
    seen = ~mask.removed.view(-1, 3, 2, 3, 2)
    assert (seen == seen[:, :, :1, :, :1]).all()  # whole units
    return seen[:, :, 0, :, 0].flatten(1)


def test_the_loss_is_transformers_in_value_and_gradient(fused) -> None:
    method, tokens, mask, batch = fused
    model = reference(method)
    expected = model(images(tokens), noise=noise(mask)).loss
    loss = method(batch).loss
    torch.testing.assert_close(loss.float(), expected.float(), rtol=1e-5, atol=0)
    method.zero_grad()
    loss.backward()
    expected.backward()
    grads = {name: weight.grad for name, weight in model.named_parameters() if weight.requires_grad}
    assert len(grads) == len(list(method.parameters()))
    for name, weight in method.named_parameters():
        torch.testing.assert_close(weight.grad, ours(name, grads[theirs(method, name)]), rtol=1e-4, atol=1e-7)


def test_the_visible_units_are_encoded_as_timm_does(fused) -> None:
    method, tokens, mask, _ = fused
    trunk, seen = method.backbone.trunk, kept(mask)
    first, second, _, last = trunk.forward_features(images(tokens), mask=seen, return_intermediates=True)[1]
    rank = method.backbone.unit_of[mask.keep[:, ::4]].argsort(dim=1)  # timm has units in the order of the grid
    for scale, expected in zip(method.backbone.scales(tokens, mask.keep), (first, second, last), strict=True):
        torch.testing.assert_close(scale.take_along_dim(rank[..., None, None, None], dim=1), expected)
    final = trunk.head.norm(last).flatten(1, 3).unflatten(1, (-1, 4))
    features = method.backbone(tokens, mask.keep).unflatten(1, (-1, 4))
    torch.testing.assert_close(features.take_along_dim(rank[..., None, None], dim=1), final)


def test_attention_within_units_is_that_of_the_whole_image(fused) -> None:
    """The first two resolutions read nothing of other units but pixels at the border, which are hidden as zeros."""
    method, tokens, mask, _ = fused
    blank = tokens.value.masked_fill(mask.removed[..., None], 0.0)
    whole = method.backbone.trunk.forward_intermediates(images(tokens._replace(value=blank)))[1]
    for scale, full in zip(method.backbone.scales(tokens, mask.keep), whole[:2], strict=False):
        side = full.shape[2] // 3
        for row, units in enumerate(method.backbone.unit_of[mask.keep[:, ::4]].tolist()):
            for number, unit in enumerate(units):
                top, left = unit // 3 * side, unit % 3 * side
                part = full[row, :, top : top + side, left : left + side].movedim(0, 2)
                torch.testing.assert_close(scale[row, number], part)


def test_resolutions_are_fused_as_a_loop_does(fused) -> None:
    method, tokens, mask, _ = fused
    maps = method.backbone.scales(tokens, mask.keep)
    result = method.fusion(maps)
    expected = maps[2].clone()
    for head, finer in zip(method.fusion.heads, maps, strict=False):
        side = finer.shape[2] // 2
        for row in range(2):
            for column in range(2):
                square = finer[:, :, row * side : (row + 1) * side, column * side : (column + 1) * side]
                weight = head.weight.permute(0, 2, 3, 1)  # (D, rows, columns, D_i)
                expected[:, :, row, column] += torch.einsum("burcd,krcd->buk", square, weight) + head.bias
    torch.testing.assert_close(result, expected)
    assert [head.kernel_size for head in method.fusion.heads] == [(4, 4), (2, 2)]


def test_hidden_units_stay_hidden(fused) -> None:
    method, tokens, mask, batch = fused
    painted = method.reconstruct(batch)
    other = tokens._replace(value=tokens.value.masked_fill(mask.removed[..., None], 7.0))
    torch.testing.assert_close(method.backbone(other, mask.keep), method.backbone(tokens, mask.keep), rtol=0, atol=0)
    assert painted.shape == tokens.value.shape
    normal = (tokens.value - tokens.value.mean(2, keepdim=True)) / (tokens.value.var(2, keepdim=True) + 1e-6).sqrt()
    units = (painted - tokens.value.mean(2, keepdim=True)) / (tokens.value.var(2, keepdim=True) + 1e-6).sqrt()
    error = (units - normal).square().mean(dim=2)[mask.removed].mean()
    torch.testing.assert_close(method(batch).loss.double(), error.double(), rtol=1e-5, atol=0)


def test_an_image_has_nineteen_visible_units_of_four_tokens() -> None:
    """49 units of 32 pixels, of which int(49 * 0.4) stay."""
    mask = RandomMask(0.6, 2).draw(torch.rand(16, 49), (14, 14))
    assert (mask.keep.shape, mask.hide.shape) == ((16, 76), (16, 120))
    corners, rest = mask.keep[:, ::4, None], mask.keep.unflatten(1, (-1, 4))
    assert (corners % 2 == 0).all()
    assert (corners // 14 % 2 == 0).all()
    assert (rest == corners + torch.tensor([0, 1, 14, 15])).all()


def test_without_fusion_the_last_resolution_alone_is_decoded(setting) -> None:
    method, batch = setting("mae", "hiera", samples=2, **KNOBS, **DECODER)
    view = batch.views[0]
    places = method.decoder(method.backbone(view.value, view.mask.keep), view.mask)
    target = method.target.of(view.value, view.mask.hide)
    expected = (method.decoder.paint(places)[:, view.mask.keep.shape[1] :] - target).square().mean()
    torch.testing.assert_close(method(batch).loss, expected)
    method(batch).loss.backward()
    assert all(weight.grad is not None for weight in method.parameters())


def test_linear_layers_and_patches_begin_by_glorots_rule(setting) -> None:
    trunk = setting("mae", "hiera", **KNOBS, **DECODER)[0].backbone.trunk
    for weight in (trunk.blocks[-1].mlp.fc1.weight, trunk.blocks[3].attn.qkv.weight, trunk.patch_embed.proj.weight):
        rows, columns = weight.flatten(1).shape
        assert weight.std().item() == pytest.approx((2 / (rows + columns)) ** 0.5, rel=0.05)
    assert trunk.pos_embed.std().item() == pytest.approx(0.02, rel=0.1)


def test_a_hieras_positions_do_not_decay(setting) -> None:
    method, _ = setting("mae", "hiera", **KNOBS, **DECODER)
    spared = [name for name, weight in method.named_parameters() if method.param_options(name, weight).no_weight_decay]
    assert spared == ["encoders.image.trunk.pos_embed"]


def test_a_batch_in_pieces_is_encoded_as_the_whole(fused) -> None:
    method, tokens, mask, _ = fused
    encoder = method.backbone
    whole = encoder(tokens, mask.keep)
    encoder.pieces = 2
    pieces = encoder(tokens, mask.keep)
    encoder.pieces = 1
    torch.testing.assert_close(pieces, whole)


def test_evaluation_sees_whole_images_with_the_same_weights(fused) -> None:
    """One pooling more than in training; each sees a whole image, as tokens or not."""
    method, tokens, _, _ = fused
    settings = Backbone(name="hiera_tiny_224", image_size=48, patch_size=8, width=16, depth=6)
    encoder = build(settings).to(torch.float64)
    assert type(encoder) is PooledEncoder
    encoder.trunk.load_state_dict(method.backbone.trunk.state_dict())
    features = encoder.pooled(images(tokens))
    torch.testing.assert_close(features, encoder.trunk(images(tokens)))
    assert encoder.layers(images(tokens), [2, 4])[4].equal(features)
    own_features = method.backbone.pooled(tokens)
    assert own_features.shape == features.shape == (4, 128)
    assert method.backbone.spatial(tokens).shape == (4, 128, 6, 6)
    assert not own_features.allclose(features)


def test_a_contrastive_objective_sees_images_on_a_hiera(setting) -> None:
    method, batch = setting("simclr", "hiera", samples=2)
    assert batch.views[0].value.shape == (2, 3, 48, 48)
    method(batch).loss.backward()
    assert all(weight.grad is not None for weight in method.parameters())


SIZES = {"backbone.name": "hiera_tiny_224", "backbone.depth": 6}
REFUSED = {
    "simmim works on all tokens of a plain ViT, and hiera_tiny_224 can only leave out mask units; choose a plain ViT": {
        "spec": "photos/simmim"
    },
    "hiera_tiny_224 leaves out mask units of 2 by 2 tokens; expected mask: random, mask_block: 2": {},
    "hiera_tiny_224 leaves mask units out, and has no place for mask tokens": {
        "hyper.mask_token": "true",
        "hyper.mask_block": 2,
    },
    "vit_tiny_patch16_224 has one resolution, and multi_scale is of a Hiera's": {
        "backbone.name": "vit_tiny_patch16_224",
        "hyper.multi_scale": "true",
    },
    "has no effect on hiera_tiny_224, which is no plain ViT": {"backbone.pool": "mean", "hyper.mask_block": 2},
}


@pytest.mark.parametrize("message", REFUSED)
def test_settings_that_a_hiera_does_not_have_are_refused(message: str) -> None:
    asked = SIZES | REFUSED[message]
    spec = str(asked.pop("spec", "photos/mae"))
    with pytest.raises(SpecError) as refused:
        read(spec, [f"{path}={value}" for path, value in asked.items()])
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"image_size": 40}, "samples of 40 x 40 points do not divide into mask units of 16"),
        ({"patch_size": 10}, "tokens of a Hiera begin with a quarter of its pixels a side, and 10 has none"),
        ({"depth": 5}, "has 5 blocks beside those of its third resolution; expected more, not 5"),
        ({"heads": 3}, "16 channels do not divide into 3 heads"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(sizes: dict[str, int], message: str) -> None:
    usual = {"image_size": 48, "patch_size": 8, "width": 16, "depth": 6}
    backbone = Backbone(name="hiera_tiny_224", **(usual | sizes))
    with pytest.raises(SpecError, match=message):
        check_images(backbone, image_shape(backbone), (image_shape(backbone).sizes,))


@pytest.mark.parametrize("name", ["hiera_base_224", "vit_small_patch16_224"])
def test_own_patches_of_a_name_make_a_grid(name: str) -> None:
    spec = read("in1k/mae")
    setup = Setup(Backbone(name=name), spec.train, 1, (224, 224))
    assert setup.grid == (14, 14)
    assert setup._replace(sizes=(220, 224)).grid is None
    assert setup._replace(backbone=Backbone(name="resnet18")).grid is None


def test_depth_is_of_the_third_resolution() -> None:
    """Hiera-S has four blocks more than Hiera-T there."""
    with torch.device("meta"):
        deeper = build(Backbone(name="hiera_tiny_224", depth=16), load("mae").initialize).trunk
        small = build(Backbone(name="hiera_small_224")).trunk
    assert {name: weight.shape for name, weight in deeper.state_dict().items()} == {
        name: weight.shape for name, weight in small.state_dict().items()
    }

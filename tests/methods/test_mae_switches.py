"""The switches of MAE's Table 1, each against its definition: mask tokens, targets, sampling, augmentation, FLOPs."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from selfsup import encoder
from selfsup.batch import blank_batch
from selfsup.masks import FilledBlockMask, GridMask, RandomMask
from selfsup.method import TrainInfo, load
from selfsup.parts.patch import unpatchify
from selfsup.parts.pca import components
from selfsup.sections import Backbone
from selfsup.views import Center, Crop, sized

MAE = load("mae")
DECODER = {"decoder_width": 32, "decoder_depth": 2, "decoder_heads": 4}
SWITCHES = [
    {"mask_token": True},
    {"mask_token": True, "mask": "block"},
    {"mask_block": 2},
    {"target": "pca", "components": 12},
    {"target": "hog", "cell": 2},
]


@pytest.mark.parametrize("knobs", SWITCHES, ids=str)
def test_a_switch_leaves_no_weight_without_gradient(knobs: dict[str, object], setting) -> None:
    method, batch = setting("mae", **DECODER, **knobs)
    method(batch).loss.backward()
    grads = {name: weight.grad for name, weight in method.named_parameters() if weight.requires_grad}
    assert all(grad is not None and grad.any() for grad in grads.values())
    assert method.reconstruct(batch).shape == batch.views[0].value.value.shape


def test_with_mask_tokens_the_encoder_is_timms_on_a_grid_of_them(setting) -> None:
    """By timm's own modules, in the order of the grid, where ours is in that of the mask."""
    method, batch = setting("mae", mask_token=True, double=True, **DECODER)
    tokens, removed = batch.views[0].value, batch.views[0].mask.removed
    loss = method(batch).loss
    trunk, decoder = method.backbone.trunk, method.decoder
    embedded = trunk.patch_embed(unpatchify(tokens.value, grid=(4, 4), patch=4))
    embedded = torch.where(removed[..., None], method.mask_token, embedded)
    hidden = trunk.norm(trunk.blocks(trunk._pos_embed(embedded)))
    positions = torch.cat([torch.zeros_like(decoder.places.positions[:1]), decoder.places.positions])
    painted = decoder.head(decoder.norm(decoder.blocks(decoder.embed(hidden) + positions)))[:, 1:]
    expected = (painted - tokens.value).square().mean(dim=2)[removed].mean()
    torch.testing.assert_close(loss, expected.float(), rtol=1e-6, atol=0)  # a loss is in single precision
    weights = [weight for weight in method.parameters() if weight.requires_grad]
    for ours, theirs in zip(torch.autograd.grad(loss, weights), torch.autograd.grad(expected, weights), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-8)


def test_mask_tokens_cost_what_the_paper_says() -> None:
    """Table 1c: 3.3 times the FLOPs, of a ViT-L/16 and its decoder; here an eighth of the blocks of both, 3 and 1."""
    with_tokens, without = (flops(MAE.Hyper(mask_token=given, decoder_depth=1)) for given in (True, False))
    assert with_tokens / without == pytest.approx(3.3, abs=0.1)


def flops(hyper: MAE.Hyper) -> int:
    with torch.device("meta"):
        trunk = encoder.build(Backbone(name="vit_large_patch16_224", depth=3))
        info = TrainInfo(num_samples=1, num_classes=1, num_steps=1, steps_per_epoch=1)
        method = MAE(hyper, {"image": trunk}, info)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        method(blank_batch(sized(MAE.views(hyper), 224), 16, 1, "meta"))
    return int(counter.get_total_flops())


def test_pca_is_learned_in_the_space_of_components(setting) -> None:
    method, batch = setting("mae", target="pca", components=12, **DECODER)
    tokens, mask = batch.views[0].value, batch.views[0].mask
    basis = components(12, sides=(4, 4), channels=3)
    error = (method.reconstruct(batch) - tokens.value) @ basis  # orthonormal: what it paints has these components
    torch.testing.assert_close(method(batch).loss, error.square().mean(dim=2)[mask.removed].mean())


def test_each_sampling_is_a_rule() -> None:
    rules = {"grid": GridMask(), "block": FilledBlockMask(0.75), "random": RandomMask(0.75)}
    for name, rule in rules.items():
        assert MAE.views(MAE.Hyper(mask=name)).specs[0].mask == rule
    assert MAE.views(MAE.Hyper(mask_block=4)).specs[0].mask == RandomMask(0.75, unit=4)


def test_each_augmentation_is_a_view_of_table_1e() -> None:
    [random], [fixed], [none], [colored] = (
        MAE.views(MAE.Hyper(**knobs)).specs
        for knobs in ({}, {"crops": "fixed"}, {"crops": "none"}, {"color_jitter": 0.4})
    )
    assert isinstance(random, Crop)
    assert (random.scale, random.share, random.flip, random.jitter) == ((0.2, 1.0), None, 0.5, 0.0)
    assert (fixed.share, fixed.flip, fixed.jitter) == (0.875, 0.5, 0.0)
    assert isinstance(none, Center)
    assert (none.share, none.flip) == (0.875, 0.0)
    colors = colored.jitter, colored.brightness, colored.contrast, colored.saturation, colored.hue
    assert colors == (1.0, 0.4, 0.4, 0.4, 0.1)

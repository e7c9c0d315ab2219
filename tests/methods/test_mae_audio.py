"""MAE on spectrograms: transformers' ViTMAE by masks of time and frequency, and a decoder of timm's local blocks."""

from collections.abc import Mapping

import pytest
import torch
from small import shake
from timm_windows import theirs_of
from torch import Tensor
from transformers import ViTMAEConfig, ViTMAEForPreTraining
from transformers_names import compare_gradients, renamed

from selfsup import encoder
from selfsup.batch import Batch, blank_batch
from selfsup.masks import AxisMask
from selfsup.method import Method, TrainInfo, load
from selfsup.modality import load as load_modality
from selfsup.parts.patch import patchify, unpatchify
from selfsup.pipelines.modalities.audio import AudioInput
from selfsup.sections import Backbone, Duration, InputShape, Setup, Train

MAE, AUDIO = load("mae"), load_modality("audio")
SIZES, GRID = (32, 8), (8, 2)  # of as many patches as a square: transformers 5 refuses others
DECODER = {"decoder_width": 32, "decoder_depth": 2, "decoder_heads": 4}


def setting(**hyper: object) -> tuple[Method, Batch]:
    """Return MAE on spectrograms of one value a bin, and a batch of them."""
    torch.manual_seed(0)
    backbone = Backbone(name="vit_tiny_patch16_224", patch_size=4, width=48, depth=2, heads=3)
    trunk = encoder.build(backbone, MAE.initialize, InputShape(1, SIZES))
    knobs = MAE.Hyper(**DECODER, **hyper)
    method = MAE(knobs, {"audio": trunk}, TrainInfo(8, 3, 10, 2, channels=1, sizes=SIZES))
    views = AUDIO.views(MAE.views(knobs), SIZES, AudioInput(frames=32, bins=8))
    shake(method)
    batch, rule = blank_batch(views, 4, 8, channels=1), views.specs[0].mask
    mask = rule.draw(torch.rand(8, rule.num_draws(GRID)), GRID)
    return method, batch._replace(
        views=(batch.views[0]._replace(value=patchify(torch.randn(8, 1, *SIZES), 4), mask=mask),)
    )


def as_images(ours: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return weights or gradients by their names, in which sounds are images."""
    return renamed({name.replace("audio", "image"): value for name, value in ours.items()})


def reference(method: Method, config: dict[str, object]) -> ViTMAEForPreTraining:
    """Theirs with our weights. Unless it interpolates positions, it cuts squares alone into patches."""
    theirs = ViTMAEForPreTraining(ViTMAEConfig(**config))
    cut = theirs.patchify
    theirs.patchify = lambda samples, **_: cut(samples, interpolate_pos_encoding=True)
    positions = method.decoder.places.positions
    decoder = {"decoder.decoder_pos_embed": torch.cat([torch.zeros_like(positions[:1]), positions])[None]}
    theirs.load_state_dict(as_images(method.state_dict()) | decoder, strict=True)
    return theirs


@pytest.mark.parametrize(
    ("mask", "ratio"), [("random", 0.75), ("time", 0.75), ("frequency", 0.5), ("time+frequency", 0.75)]
)
def test_the_loss_is_transformers_in_value_and_gradient(mask: str, ratio: float) -> None:
    """Told our mask by noise whose order is ours."""
    method, batch = setting(mask=mask, mask_ratio=ratio, norm_pix_loss=True)
    [view] = batch.views
    config = {
        "image_size": SIZES, "patch_size": 4, "num_channels": 1, "hidden_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 3, "intermediate_size": 192, "layer_norm_eps": 1e-6, "decoder_hidden_size": 32,
        "decoder_num_hidden_layers": 2, "decoder_num_attention_heads": 4, "decoder_intermediate_size": 128,
        "mask_ratio": ratio, "norm_pix_loss": True,
    }  # fmt: skip
    theirs = reference(method, config)
    expected = theirs(unpatchify(view.value.value, grid=GRID, patch=4), noise=view.mask.restore / 16)
    assert expected.mask.bool().equal(view.mask.removed)
    loss = method(batch).loss
    torch.testing.assert_close(loss, expected.loss, rtol=1e-5, atol=0)
    compare_gradients(method, theirs, loss, expected.loss, as_images)


@pytest.mark.parametrize("mask_token", [False, True])
def test_a_decoder_of_windows_is_timms_blocks_on_the_whole_grid(mask_token: bool) -> None:
    """Every place in the order of the grid, visible features at theirs, without the class token."""
    method, batch = setting(decoder_window=2, mask="time+frequency", mask_token=mask_token)
    [view] = batch.views
    removed, decoder = view.mask.removed, method.decoder
    if mask_token:
        seen = decoder.embed(method.backbone(view.value, cover=(removed, method.mask_token)))[:, 1:]
    else:
        seen = decoder.mask_token.expand(8, 16, -1).clone()
        seen[~removed] = decoder.embed(method.backbone(view.value, view.mask.keep))[:, 1:].flatten(0, 1)
    places = (seen + decoder.places.positions).view(8, *GRID, 32)
    for number, block in enumerate(decoder.blocks):
        assert block.shift == number
        places = theirs_of(block, 2)(places)
    painted = decoder.head(decoder.norm(places.flatten(1, 2)))
    expected = (painted - view.value.value).square().mean(dim=2)[removed].mean()
    loss = method(batch).loss
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=0)
    weights = [decoder.embed.weight, decoder.head.weight, method.backbone.trunk.patch_embed.proj.weight]
    for ours, theirs in zip(torch.autograd.grad(loss, weights), torch.autograd.grad(expected, weights), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-6)
    error = (method.reconstruct(batch) - view.value.value).square().mean(dim=2)
    torch.testing.assert_close(loss, error[removed].mean())


def refused(sizes: tuple[int, ...], modality: str, **hyper: object) -> list[str]:
    backbone = Backbone(name="vit_tiny_patch16_224", patch_size=16)
    setup = Setup(backbone, Train(duration=Duration(steps=8), batch=8), 1, sizes, modality=modality)
    return [str(error) for error in MAE.check(MAE.Hyper(**hyper), setup)]


def test_masks_and_windows_are_of_samples_that_have_them() -> None:
    local = {"decoder_window": 4}
    assert refused((1024, 128), "audio", mask="time+frequency", mask_ratio=0.8, **local) == []
    assert refused((128, 32), "audio", mask_ratio=0.5, **local) == [], "windows of 4 by 2"
    assert refused((64,), "series", mask="time", **local) == []
    [broken] = refused((1024, 96), "audio", **local)
    assert "a grid of 64 x 6 tokens does not divide into windows of 4 (hyper.decoder_window)" in broken
    assert refused((64, 64), "image", mask="time") == ["hyper.mask: image has no time; use mask: random"]
    first, *_ = refused((64,), "series", mask="frequency")
    assert first == "hyper.mask: series has no frequency; use mask: random"


def test_masks_of_time_and_frequency_are_rules() -> None:
    for mask, ratios in {"time": (0.75,), "frequency": (0.0, 0.75), "time+frequency": (0.5, 0.5)}.items():
        assert MAE.views(MAE.Hyper(mask=mask)).specs[0].mask == AxisMask(ratios)

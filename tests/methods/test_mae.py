"""MAE against transformers' ViTMAEForPreTraining: the same weights, mask and pixels, the same loss and gradient."""

import pytest
import torch
from pydantic import ValidationError
from small import shake
from transformers import ViTMAEConfig, ViTMAEForPreTraining
from transformers_names import renamed

from selfsup.masks import RandomMask
from selfsup.method import load
from selfsup.parts.patch import unpatchify

MAE = load("mae")
DECODER = {"decoder_width": 32, "decoder_depth": 2, "decoder_heads": 4}
CONFIG = {
    "image_size": 16,
    "patch_size": 4,
    "hidden_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 4 * 48,
    "layer_norm_eps": 1e-6,
    "decoder_hidden_size": 32,
    "decoder_num_hidden_layers": 2,
    "decoder_num_attention_heads": 4,
    "decoder_intermediate_size": 4 * 32,
    "mask_ratio": 0.75,
}


def reference(method: MAE, *, norm_pix: bool) -> ViTMAEForPreTraining:
    """Theirs with our weights. Built without a checkpoint, its positions would all be zero: ours are told too."""
    theirs = ViTMAEForPreTraining(ViTMAEConfig(**CONFIG, norm_pix_loss=norm_pix))
    positions = method.decoder.places.positions
    decoder = {"decoder.decoder_pos_embed": torch.cat([torch.zeros_like(positions[:1]), positions])[None]}
    theirs.load_state_dict(renamed(method.state_dict()) | decoder, strict=True)
    return theirs


@pytest.mark.parametrize("norm_pix", [False, True])
def test_the_loss_is_transformers_in_value_and_gradient(norm_pix: bool, setting) -> None:
    method, batch = setting("mae", norm_pix_loss=norm_pix, **DECODER)
    shake(method)
    theirs = reference(method, norm_pix=norm_pix)
    pixels = unpatchify(batch.views[0].value.value, grid=(4, 4), patch=4)
    noise = torch.rand(8, 16)
    expected = theirs(pixels, noise=noise)
    mask = RandomMask(0.75).draw(noise, (4, 4))
    batch = batch._replace(views=(batch.views[0]._replace(mask=mask),))
    loss = method(batch).loss
    torch.testing.assert_close(loss, expected.loss, rtol=1e-5, atol=0)
    loss.backward()
    expected.loss.backward()
    ours = renamed({name: weight.grad for name, weight in method.named_parameters() if weight.requires_grad})
    compared = {name: weight.grad for name, weight in theirs.named_parameters() if weight.requires_grad}
    assert ours.keys() == compared.keys()
    for name, grad in compared.items():
        torch.testing.assert_close(
            ours[name], grad, rtol=1e-3, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}"
        )


def test_reconstruct_paints_what_forward_judges(setting) -> None:
    method, batch = setting("mae", **DECODER)
    error = (method.reconstruct(batch) - batch.views[0].value.value).square().mean(dim=2)
    torch.testing.assert_close(method(batch).loss, error[batch.views[0].mask.removed].mean())


def test_reconstruct_is_in_pixels_whatever_the_target(setting) -> None:
    """A decoder that always says 1 in normalized units paints one deviation above each true patch's mean."""
    method, batch = setting("mae", norm_pix_loss=True, **DECODER)
    torch.nn.init.zeros_(method.decoder.head.weight)
    torch.nn.init.ones_(method.decoder.head.bias)
    pixels = batch.views[0].value.value
    expected = (pixels.mean(dim=2, keepdim=True) + pixels.std(dim=2, keepdim=True)).expand_as(pixels)
    torch.testing.assert_close(method.reconstruct(batch), expected, rtol=0, atol=1e-4)


def test_hidden_pixels_stay_hidden(setting) -> None:
    method, batch = setting("mae", **DECODER)
    painted = method.reconstruct(batch)
    pixels, removed = batch.views[0].value.value, batch.views[0].mask.removed[..., None]
    pixels.masked_fill_(removed, 1e3)
    assert method.reconstruct(batch).equal(painted)
    pixels.masked_fill_(~removed, 0.0)
    assert not method.reconstruct(batch).equal(painted)


def test_an_objective_asks_for_one_masked_crop() -> None:
    views = MAE.views(MAE.Hyper(mask_ratio=0.6))
    [crop] = views.specs
    assert views.specs[0].mask == RandomMask(0.6)
    assert (crop.scale, crop.flip, crop.resample) == ((0.2, 1.0), 0.5, "bicubic")
    assert (crop.jitter, crop.gray, crop.blur, crop.solarize) == (0, 0, 0, 0)


def test_a_grid_mask_shows_a_quarter_of_the_patches(setting) -> None:
    method, batch = setting("mae", mask="grid", **DECODER)
    assert batch.views[0].mask.keep.tolist() == [[0, 2, 8, 10]] * 8
    error = (method.reconstruct(batch) - batch.views[0].value.value).square().mean(dim=2)
    torch.testing.assert_close(method(batch).loss, error[batch.views[0].mask.removed].mean())


def test_a_decoder_of_broken_heads_is_refused() -> None:
    with pytest.raises(ValidationError, match="decoder_width 512 does not divide into 7 decoder_heads"):
        MAE.Hyper(decoder_heads=7)


def test_codes_of_a_tokenizer_are_predicted_at_hidden_patches(setting) -> None:
    method, batch = setting("mae", target="codes")
    [view] = batch.views
    logits = method.decoder.paint(method.decoder(method.backbone(view.value, view.mask.keep), view.mask))
    hidden = logits[:, view.mask.keep.shape[1] :]
    code = method.target.tokenizer.method.codes(view.value)
    rows = [-row.log_softmax(1)[range(12), own[at]] for row, own, at in zip(hidden, code, view.mask.hide, strict=True)]
    torch.testing.assert_close(method(batch).loss, torch.cat(rows).mean())
    painted = method.reconstruct(batch)
    order = logits.take_along_dim(view.mask.restore[..., None], dim=1).argmax(dim=2)
    torch.testing.assert_close(painted, method.target.tokenizer.method.decoded(order))

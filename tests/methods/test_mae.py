"""MAE against transformers' ViTMAEForPreTraining: the same weights, mask and pixels, the same loss and gradient."""

import numpy as np
import pytest
import torch
from histograms import of_patches
from pydantic import ValidationError
from small import shake
from torch import Tensor, nn
from transformers import ViTMAEConfig, ViTMAEForPreTraining
from transformers_names import compare_gradients, renamed

from selfsup.masks import RandomMask
from selfsup.method import Batch, load
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
    theirs.decoder.decoder_pred = nn.Linear(32, method.target.values)
    positions = method.decoder.places.positions
    decoder = {"decoder.decoder_pos_embed": torch.cat([torch.zeros_like(positions[:1]), positions])[None]}
    theirs.load_state_dict(renamed(method.state_dict()) | decoder, strict=True)
    return theirs


def hidden_by(batch: Batch, noise: Tensor) -> Batch:
    return batch._replace(views=(batch.views[0]._replace(mask=RandomMask(0.75).draw(noise, (4, 4))),))


def compare(method: MAE, theirs: ViTMAEForPreTraining, loss: Tensor, expected: Tensor) -> None:
    """Compare values, and the gradients of all weights."""
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=0)
    compare_gradients(method, theirs, loss, expected)


@pytest.mark.parametrize("norm_pix", [False, True])
def test_the_loss_is_transformers_in_value_and_gradient(norm_pix: bool, setting) -> None:
    method, batch = setting("mae", norm_pix_loss=norm_pix, **DECODER)
    shake(method)
    theirs, noise = reference(method, norm_pix=norm_pix), torch.rand(8, 16)
    expected = theirs(unpatchify(batch.views[0].value.value, grid=(4, 4), patch=4), noise=noise)
    compare(method, theirs, method(hidden_by(batch, noise)).loss, expected.loss)


def by_components(method: MAE, batch: Batch, painted: Tensor) -> Tensor:
    """-> (B, 16): how far what is painted lies from the patches' parts in the plane of their components, by NumPy"""
    neighbors, channels = (
        share ** np.abs(np.subtract.outer(range(size), range(size))) for size, share in ((4, 0.95), (3, 0.9))
    )
    _, vectors = np.linalg.eigh(np.kron(np.kron(neighbors, neighbors), channels))
    plane = torch.from_numpy(vectors[:, -12:] @ vectors[:, -12:].T).float()  # of the largest variances
    return (painted @ method.target.basis.mT - batch.views[0].value.value @ plane).square().sum(dim=2) / 12


def by_gradients(_: MAE, batch: Batch, painted: Tensor) -> Tensor:
    pixels = unpatchify(batch.views[0].value.value, grid=(4, 4), patch=4)
    return (painted - of_patches(pixels).float()).square().mean(dim=2)


def by_codes(method: MAE, batch: Batch, painted: Tensor) -> Tensor:
    code = method.target.tokenizer.method.codes(batch.views[0].value)
    return painted.exp().sum(dim=2).log() - painted.take_along_dim(code[..., None], dim=2)[..., 0]


@pytest.mark.parametrize(
    ("error", "knobs"),
    [
        (by_components, {"target": "pca", "components": 12}),
        (by_gradients, {"target": "hog", "cell": 2}),
        (by_codes, {"target": "codes"}),
    ],
)
def test_other_targets_are_predicted_as_by_transformers_in_value_and_gradient(error, knobs, setting) -> None:
    """By its encoder and decoder, with a loss that is written out patch by patch."""
    method, batch = setting("mae", **knobs, **DECODER)
    shake(method)
    theirs, noise = reference(method, norm_pix=False), torch.rand(8, 16)
    seen = theirs.vit(unpatchify(batch.views[0].value.value, grid=(4, 4), patch=4), noise=noise)
    painted = theirs.decoder(seen.last_hidden_state, seen.ids_restore).logits
    expected = error(method, batch, painted)[seen.mask.bool()].mean()
    compare(method, theirs, method(hidden_by(batch, noise)).loss, expected)


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


def test_pictures_show_the_likeliest_codes(setting) -> None:
    method, batch = setting("mae", target="codes")
    [view] = batch.views
    logits = method.decoder.paint(method.decoder(method.backbone(view.value, view.mask.keep), view.mask))
    order = logits.take_along_dim(view.mask.restore[..., None], dim=1).argmax(dim=2)
    torch.testing.assert_close(method.reconstruct(batch), method.target.tokenizer.method.decoded(order))

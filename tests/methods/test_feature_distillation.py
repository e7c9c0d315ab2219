"""Feature distillation: its loss by SciPy, grids that differ, and a CNN that learns from a ViT."""

import copy

import pytest
import torch
import torch.nn.functional as F
from scipy.spatial.distance import cosine
from small import shake

from selfsup.encoder import TokenEncoder
from selfsup.parts.patch import unpatchify


def test_the_loss_is_scipys_cosines_and_smooth_l1(setting) -> None:
    method, batch = setting("feature_distillation", "vit", double=True, angle=0.7, summary=0.5)
    shake(method)
    other, [view] = copy.deepcopy(method), batch.views
    images = unpatchify(view.value.value, grid=(4, 4), patch=4)
    wanted = method.teacher.method.backbone.trunk.forward_features(images).detach()
    hidden = other.backbone.trunk.forward_features(images)
    image, places = other.image_head(hidden[:, 0]), other.place_head(hidden[:, 1:])
    error = (places - wanted[:, 1:]).abs()
    smooth = torch.where(error < 1, error.square() / 2, error - 0.5).mean()
    pairs = [(image.flatten(), wanted[:, 0].flatten(), 0.5, 8), (places.flatten(), wanted[:, 1:].flatten(), 0.7, 128)]
    value = 0.3 * smooth.item()
    for own, theirs, weight, number in pairs:
        rows = zip(own.view(number, -1).detach().numpy(), theirs.view(number, -1).numpy(), strict=True)
        value += weight * sum(cosine(a, b) for a, b in rows) / number
    loss = method(batch).loss
    assert loss.item() == pytest.approx(value, rel=1e-6)
    angles = [weight * (1 - F.cosine_similarity(a.view(n, -1), b.view(n, -1)).mean()) for a, b, weight, n in pairs]
    loss.backward()
    (sum(angles) + 0.3 * smooth).backward()
    for (name, ours), theirs in zip(method.named_parameters(), other.parameters(), strict=True):
        if ours.requires_grad:
            torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-7, msg=name)


def test_a_cnn_learns_from_a_vit_at_its_own_places(setting) -> None:
    method, batch = setting("feature_distillation", "narrow cnn")
    _, places = method.backbone.pooled_and_spatial(batch.views[0].value)
    assert places.shape[2:] == (2, 2)
    _, own = method.teacher.features(batch.views[0].value, (4, 4))
    _, resized = method.teacher.features(batch.views[0].value, (2, 2))
    whole = own.mT.unflatten(2, (4, 4))
    torch.testing.assert_close(resized.mT.unflatten(2, (2, 2)), F.avg_pool2d(whole, 2))  # in the middle of four


@pytest.mark.parametrize("kind", ["vit", "narrow cnn", "hiera"])
def test_one_pass_gives_what_two_give(kind: str, setting) -> None:
    if kind == "hiera":
        method, batch = setting("mae", kind, mask_block=2, mask_ratio=0.6, decoder_depth=1, decoder_width=32)
    else:
        method, batch = setting("feature_distillation", kind)
    encoder, value = method.backbone.eval(), batch.views[0].value
    pools = ("cls", "mean", "mean_norm") if isinstance(encoder, TokenEncoder) else ("",)
    for pool in pools:
        encoder.pool = pool
        pooled, places = encoder.pooled_and_spatial(value)
        torch.testing.assert_close(pooled, encoder.pooled(value))
        torch.testing.assert_close(places, encoder.spatial(value))

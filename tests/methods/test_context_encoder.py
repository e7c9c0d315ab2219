"""Context encoder: regions of an exact share, errors inside them, and a game in which each player has its own loss."""

import pytest
import torch
from precision import double_precision
from torch import nn

from selfsup.methods.context_encoder import hollows
from selfsup.parts.painting import paintable, start, upward
from selfsup.parts.patch import patchify, unpatchify


def test_the_error_is_of_what_was_hidden(setting) -> None:
    method, batch = setting("context_encoder", double=True)
    images = unpatchify(batch.views[0].value.value, grid=(4, 4), patch=4)
    smooth = nn.functional.interpolate(batch.draws.view(8, 1, 8, 8), size=16, mode="bicubic")
    hole = torch.stack([noise <= noise.flatten().sort().values[63] for noise in smooth])
    seen = torch.where(hole, 0.0, images)
    painted = method.decoder(method.bottleneck(method.backbone.pooled(patchify(seen, 4))))
    error = ((painted - images) ** 2)[hole.expand_as(images)].mean()
    with double_precision():
        loss = method(batch).loss
    torch.testing.assert_close(loss, error, rtol=1e-9, atol=0)
    weights = [weight for weight in method.parameters() if weight.requires_grad]
    slopes = (torch.autograd.grad(value, weights) for value in (loss, error))
    torch.testing.assert_close(*slopes, rtol=1e-6, atol=1e-12)
    assert method.seen(batch).equal(seen)


def test_regions_are_a_share_of_each_image_anywhere() -> None:
    """Exactly a quarter each; every pixel in about a quarter of the regions; and in one piece or a few."""
    holes = hollows(torch.rand(400, 1, 8, 8), 32, 0.25)
    assert holes.sum(dim=(1, 2, 3)).unique().tolist() == [256]
    share = holes.float().mean(dim=(0, 1))
    assert share[4:-4, 4:-4].mean().item() == pytest.approx(0.25, abs=0.03)
    assert 0.1 < share.min() <= share.max() < 0.45  # corners are interpolated less, and so reach further down
    neighbors = (holes[..., 1:] == holes[..., :-1]).float().mean()
    assert neighbors > 0.85


def test_the_middle_is_painted_over_its_border(setting) -> None:
    method, batch = setting("context_encoder", "cnn", region="center", overlap=1)
    method.eval()
    images, seen, made = batch.views[0].value, method.seen(batch), method.reconstruct(batch)
    hidden = torch.zeros(16, 16, dtype=torch.bool)
    hidden[5:11, 5:11] = True
    assert ((seen == images).all(dim=(0, 1)) == ~hidden).all()
    assert ((made == images).all(dim=(0, 1)) == ~hidden).all()
    painted = method.decoder(method.bottleneck(method.backbone.pooled(seen)))
    torch.testing.assert_close(made[:, :, 5:11, 5:11], painted[:, :, 1:7, 1:7])


def test_each_player_learns_from_its_own_loss(setting) -> None:
    """The discriminator's gradient is that of telling apart, the painter's that of error and deceit."""
    knobs = {"region": "center", "overlap": 1, "adversarial": 0.3}
    method, batch = setting("context_encoder", "cnn", double=True, **knobs)
    with double_precision():
        out = method(batch)
        painted = method._painted(batch.views[0].value, method.seen(batch)[:, :1] == 0)
        deceived, judged = method._game(painted, batch.views[0].value[:, :, 4:12, 4:12])
    judge, others = [], []
    for name, weight in method.named_parameters():
        (judge if name.startswith("discriminator") else others).append(weight)
    torch.testing.assert_close(
        torch.autograd.grad(out.loss, judge, retain_graph=True), torch.autograd.grad(judged, judge)
    )
    expected = 0.7 * out.log["error"] + 0.3 * deceived
    slopes = (torch.autograd.grad(loss, others, retain_graph=True) for loss in (out.loss, expected))
    torch.testing.assert_close(*slopes, rtol=1e-6, atol=1e-10)
    assert {method.param_options(name, weight).lr_scale for name, weight in method.named_parameters()} == {0.1, 1.0}


def test_decoders_double_four_to_seven_pixels() -> None:
    assert {side: start(side) for side in (8, 24, 64, 112, 224)} == {
        8: (4, 1),
        24: (6, 2),
        64: (4, 4),
        112: (7, 4),
        224: (7, 5),
    }
    assert [side for side in range(4, 50) if paintable(side)] == [8, 10, 12, 14, 16, 20, 24, 28, 32, 40, 48]
    assert upward(5, 3, 24, 4)(torch.randn(2, 5)).shape == (2, 3, 24, 24)

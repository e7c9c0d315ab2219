"""CAE: its loss by torch's own multi-head attention, what its encoder sees, and what it paints."""

import torch
from loops.authors import copied, same_gradients
from loops.tokens import caes_loss
from precision import double_precision
from small import shake

from selfsup.encoder import build
from selfsup.masks import FilledBlockMask
from selfsup.method import load
from selfsup.parts import initial
from selfsup.sections import Backbone

CAE = load("cae")


def test_the_loss_is_torchs_attention_in_value_and_gradient(setting) -> None:
    method, batch = setting("cae", double=True)
    shake(method)
    names = {"backbone": "encoders.image", "regressor": "regressor", "decoder": "decoder"}
    student = copied(method, names)
    with double_precision():
        loss, expected = method(batch).loss, caes_loss(method, student, batch)
    torch.testing.assert_close(loss, expected, rtol=1e-9, atol=0)
    loss.backward()
    expected.backward()
    same_gradients(method, student, names)


def test_hidden_patches_reach_the_loss_as_targets_only(setting) -> None:
    """Their pixels change the loss, but neither what is predicted nor, by a gradient, any weight on their way."""
    method, batch = setting("cae")
    tokens, mask = batch.views[0].value, batch.views[0].mask
    before, loss = method._predicted(tokens, mask), method(batch).loss
    tokens.value.requires_grad_()
    method(batch).loss.backward()
    touched = tokens.value.grad.any(dim=2)
    assert touched.equal(~mask.removed)
    tokens.value.requires_grad_(False)[mask.removed] = 1.0
    assert all(one.equal(two) for one, two in zip(before, method._predicted(tokens, mask), strict=True))
    assert not method(batch).loss.equal(loss)


def test_half_the_patches_are_hidden_in_rectangles() -> None:
    [crop] = CAE.views(CAE.Hyper()).specs
    assert crop.mask == FilledBlockMask(0.5)
    assert crop.mask.typical((14, 14)) == (98, 98)


def test_pictures_show_what_codes_stand_for(setting) -> None:
    method, batch = setting("cae")
    tokens, mask = batch.views[0].value, batch.views[0].mask
    painted, tokenizer = method.reconstruct(batch), method.target.tokenizer
    codes = tokenizer.codes(tokens)
    codes[mask.removed] = method._predicted(tokens, mask)[1].argmax(dim=2).gather(1, mask.hide.argsort(dim=1)).flatten()
    assert painted.equal(tokenizer.decoded(codes))


def test_scales_of_layers_begin_at_a_tenth() -> None:
    trunk = build(
        Backbone(name="deit3_small_patch16_224", image_size=32, width=48, depth=1, heads=3), initial.cae
    ).trunk
    scales = [weight for name, weight in trunk.named_parameters() if "gamma" in name]
    assert len(scales) == 2
    assert all(scale.eq(0.1).all() for scale in scales)

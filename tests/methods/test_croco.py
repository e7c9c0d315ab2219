"""CroCo against torch's own decoder layers; what it is told by the second view, and that it learns to ask there."""

from dataclasses import replace

import torch
from loops.authors import copied, same_gradients
from loops.modalities import CROCO, croco_loss
from precision import double_precision
from small import shake

from selfsup.batch import Batch
from selfsup.method import Method
from selfsup.spec import read


def test_value_and_gradient_are_those_of_torchs_decoder_layers(setting) -> None:
    method, batch = setting("croco", samples=3, double=True, decoder_depth=2)
    shake(method)
    parts = copied(method, CROCO)
    with double_precision():
        ours, theirs = method(batch).loss, croco_loss(parts, batch)
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=0)
    ours.backward()
    theirs.backward()
    same_gradients(method, parts, CROCO)


def test_hidden_patches_are_not_seen_and_the_second_view_is_where_it_is_read(setting) -> None:
    method, batch = setting("croco")
    first, second = batch.views
    painted = method.reconstruct(batch)
    pixels = first.value.value.masked_fill(first.mask.removed[..., None], 9.0)
    method.target.normalized = False  # it paints what it says, not at the true patches' moments
    plain = method.reconstruct(batch)
    assert not plain.equal(painted)
    hidden = batch._replace(views=(first._replace(value=first.value._replace(value=pixels)), second))
    assert method.reconstruct(hidden).equal(plain)
    other = with_second(batch, second.value.value.flip(0))
    assert (method.reconstruct(other) - plain).abs().max() > 1e-3
    for block in method.decoder.blocks:  # what is read tells nothing
        torch.nn.init.zeros_(block.v.weight)
    assert method.reconstruct(other).equal(method.reconstruct(batch))


def test_it_learns_to_find_patches_in_the_second_view(setting) -> None:
    """Patches of one color each, which the second view has one place farther: of a scene of its own they are found.

    Of another's they are not.
    """
    method, batch = setting("croco", samples=32, norm_pix_loss=False, decoder_depth=2, decoder_heads=4)
    optimizer = torch.optim.AdamW(method.parameters(), lr=5e-3)
    for step in range(180):
        loss = method(scenes(batch, step)).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    fresh = scenes(batch, 1000)
    wrong = with_second(fresh, fresh.views[1].value.value.roll(1, 0))
    with torch.no_grad():
        own, others = method(fresh).loss, method(wrong).loss
    assert own < 0.9 * others, (own, others)


def scenes(batch: Batch, seed: int) -> Batch:
    """Return other pixels: views of (4, 4) patches of one color, of variance 1, the second moved by a column."""
    generator = torch.Generator().manual_seed(seed)
    color = torch.randn(len(batch.sample), 4, 4, 1, 3, generator=generator).expand(-1, -1, -1, 16, -1)
    first, second = (view.flatten(3).flatten(1, 2) for view in (color, color.roll(1, 2)))
    view, other = batch.views
    shown = view._replace(value=view.value._replace(value=first))
    return with_second(batch._replace(views=(shown, other)), second)


def with_second(batch: Batch, pixels: torch.Tensor) -> Batch:
    first, second = batch.views
    return batch._replace(views=(first, second._replace(value=second.value._replace(value=pixels))))


def test_views_are_cut_and_colored_each_by_itself(setting) -> None:
    method: type[Method] = type(setting("croco")[0])
    first, second = method.views(method.Hyper()).specs
    assert second.of is second.mask is None
    assert second.crop == replace(first, mask=None)
    assert (first.share * 256, first.flip, first.jitter) == (224, 0, 1)


def test_the_recipe_is_that_of_the_authors() -> None:
    """README and pretrain.py: a learning rate that ends where a cosine of 800 epochs is after 400, of 40 to warm up."""
    spec = read("habitat/croco")
    optim, hyper = spec.optim, spec.hyper
    assert (hyper.mask_ratio, hyper.norm_pix_loss, hyper.color_jitter) == (0.9, True, 0.4)
    assert (hyper.decoder_width, hyper.decoder_depth, hyper.decoder_heads) == (512, 8, 16)
    assert (optim.lr, optim.lr_rule, optim.lr_batch, optim.betas) == (1.5e-4, "linear", 256, (0.9, 0.95))
    end = optim.lr * (1 + torch.tensor(torch.pi * 360 / 760).cos()) / 2
    torch.testing.assert_close(torch.tensor(optim.min_lr), end, rtol=1e-3, atol=0)
    assert (spec.train.batch, spec.train.duration.epochs, optim.warmup.epochs) == (4 * 64, 400, 40)

"""Jigsaw: embeddings of pieces side by side, in the order that a sample's draw names."""

import torch
import torch.nn.functional as F
from precision import double_precision

from selfsup.parts.patch import patchify, unpatchify
from selfsup.parts.pretext import pieces


def test_the_loss_names_the_order_of_the_pieces(setting) -> None:
    method, batch = setting("jigsaw", double=True)
    tokens = batch.views[0].value
    images = unpatchify(tokens.value, grid=tokens.grid, patch=4)
    cut = pieces(images, batch.draws[:, :18], piece=8)
    flat = cut.flatten(2)
    flat = (flat - flat.mean(2, keepdim=True)) / (flat.var(2, correction=0, keepdim=True) + 1e-6).sqrt()
    seen = method.embed(method.backbone.pooled(patchify(flat.view_as(cut).flatten(0, 1), 4))).view(8, 9, -1)
    truth = [int(6 * draw) for draw in batch.draws[:, 18]]
    rows = [torch.cat([own[place] for place in method.orders[name]]) for own, name in zip(seen, truth, strict=True)]
    expected = F.cross_entropy(method.head(torch.stack(rows)), torch.tensor(truth))
    with double_precision():
        loss = method(batch).loss
    torch.testing.assert_close(loss, expected, rtol=1e-9, atol=0)
    weights = [weight for weight in method.parameters() if weight.requires_grad]
    slopes = (torch.autograd.grad(value, weights) for value in (loss, expected))
    torch.testing.assert_close(*slopes, rtol=1e-7, atol=1e-12)


def test_every_order_is_asked_for(setting) -> None:
    """The greatest draw, which rounds to 1 when multiplied, included."""
    method, batch = setting("jigsaw")
    for place, draw in enumerate((0.0, 0.17, 0.34, 0.51, 0.67, 1 - 2**-24)):
        batch.draws[place, 18] = draw
    truth = (batch.draws[:6, 18] * 6).long().tolist()
    assert truth == [0, 1, 2, 3, 4, 5]
    assert method(batch).loss.isfinite()

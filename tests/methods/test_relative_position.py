"""Relative position: pairs with the middle, in their order, of pieces that are cut and bleached by hand."""

import torch
import torch.nn.functional as F
from precision import double_precision
from torch import Tensor

from selfsup.parts.patch import patchify, unpatchify

PLACES = (0, 1, 2, 3, 5, 6, 7, 8)  # in a grid of 3 by 3, as they are numbered in the authors' code


def bleached(piece: Tensor, draw: float) -> Tensor:
    """(3, p, p): one channel, of mean 0, over the root mean square of all three."""
    channel, out = int(3 * draw), torch.zeros_like(piece)
    out[channel] = piece[channel] - piece[channel].mean()
    return out / (out.square().mean() + 1e-6).sqrt()


def test_the_loss_is_of_eight_neighbors_with_the_middle(setting) -> None:
    method, batch = setting("relative_position", double=True)
    tokens = batch.views[0].value
    images = unpatchify(tokens.value, grid=tokens.grid, patch=4)
    cut = []
    for number in range(9):
        row, column = divmod(number, 3)
        for image, draws in zip(images, batch.draws, strict=True):
            top, left = (
                12 * cell + 1 + int(3 * draw)
                for cell, draw in ((row, draws[2 * number]), (column, draws[2 * number + 1]))
            )
            cut.append(bleached(image[:, top : top + 8, left : left + 8], draws[18 + number].item()))
    seen = method.backbone.pooled(patchify(torch.stack(cut), 4)).view(9, 8, -1)
    logits = method.head(torch.cat([torch.cat([seen[place], seen[4]], dim=1) for place in PLACES]))
    expected = F.cross_entropy(logits, torch.arange(8).repeat_interleave(8))
    with double_precision():
        loss = method(batch).loss
    torch.testing.assert_close(loss, expected, rtol=1e-9, atol=0)
    weights = [weight for weight in method.parameters() if weight.requires_grad]
    slopes = (torch.autograd.grad(value, weights) for value in (loss, expected))
    torch.testing.assert_close(*slopes, rtol=1e-7, atol=1e-12)


def test_with_colors_all_channels_are_seen(setting) -> None:
    method, batch = setting("relative_position", colors=True)
    cut = method._cut(batch)
    assert cut.var(dim=(3, 4)).all()
    assert not setting("relative_position")[0]._cut(batch).var(dim=(3, 4)).all()

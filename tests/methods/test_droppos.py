"""DropPos: its encoder without some positions, its labels and weights, each worked out place by place."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from selfsup.masks import RandomMask
from selfsup.method import Batch, Method, load
from selfsup.parts.patch import unpatchify


def encoded(method: Method, images: Tensor, keep: Tensor, known: int) -> Tensor:
    """timm's own embedding, the positions of the first `known` tokens alone, and its blocks."""
    trunk = method.backbone.trunk
    patches, positions = trunk.patch_embed(images), trunk.pos_embed[0, 1:]
    rows = []
    for sample, numbers in enumerate(keep.tolist()):
        places = [positions[n] if i < known else method.no_position[0] for i, n in enumerate(numbers)]
        rows.append(
            torch.cat([trunk.cls_token[0] + trunk.pos_embed[0, :1], patches[sample, numbers] + torch.stack(places)])
        )
    hidden = torch.stack(rows)
    for block in trunk.blocks:
        hidden = block(hidden)
    return trunk.norm(hidden)


def expected(method: Method, batch: Batch, sigma: float, *, attentive: bool) -> Tensor:
    [view] = batch.views
    images, keep = unpatchify(view.value.value, grid=(4, 4), patch=4), view.mask.keep
    logits = method.decoder(encoded(method, images, keep, known=2))[:, 1:]
    whole = encoded(method, images, torch.arange(16).expand(8, -1), known=16).detach()
    total, weights = torch.zeros(()), 0.0
    for sample in range(8):
        likeness = F.softmax(F.cosine_similarity(whole[sample, :1], whole[sample, 1:]) / 0.1, dim=0)[keep[sample]]
        likeness = likeness / likeness.sum()
        for number in range(2, 8):
            place = int(keep[sample, number])
            label = torch.tensor(
                [math.exp(-((place // 4 - p // 4) ** 2 + (place % 4 - p % 4) ** 2) / sigma**2) for p in range(16)]
            )
            error = -(label / label.sum() * logits[sample, number].log_softmax(0)).sum()
            weight = float(likeness[number]) if attentive else 1.0
            total, weights = total + weight * error, weights + weight
    return total / weights


@pytest.mark.parametrize("attentive", [True, False])
def test_the_loss_is_worked_out_place_by_place(attentive: bool, setting) -> None:
    """int(8 / 4) of 8 visible patches keep their positions."""
    method, batch = setting("droppos", attentive=attentive, mask_ratio=0.5, smoothing=1.5)
    loss, other = method(batch).loss, expected(method, batch, 1.5, attentive=attentive)
    torch.testing.assert_close(loss, other)
    weights = [*method.backbone.trunk.blocks.parameters(), method.no_position, *method.decoder.parameters()]
    for ours, theirs in zip(torch.autograd.grad(loss, weights), torch.autograd.grad(other, weights), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-6)


def test_labels_narrow_epoch_by_epoch_to_one_place(setting) -> None:
    method, _ = setting("droppos")
    widths = [method.sigma.item()]
    for step in range(10):
        method.after_step(step / 10, {})
        widths.append(method.sigma.item())
    assert widths[:5] == pytest.approx([1.0, 1.0, 0.8, 0.8, 0.6])  # five epochs of two steps
    assert widths[-1] == 0
    assert method._labels().equal(torch.eye(16))


def test_which_positions_are_dropped_is_as_random_as_the_mask() -> None:
    """The visible patches stand in the order of their noise: the first of them are any of them."""
    kind = load("droppos")
    [crop] = kind.views(kind.Hyper()).specs
    assert crop.mask == RandomMask(0.75)
    torch.manual_seed(0)
    first = RandomMask(0.5).draw(torch.rand(8000, 16), (4, 4)).keep[:, 0]
    share = torch.bincount(first, minlength=16) / 8000
    assert (share - 1 / 16).abs().max() < 4.5 * (1 / 16 * 15 / 16 / 8000) ** 0.5


def test_without_smoothing_a_label_is_its_place(setting) -> None:
    method, _ = setting("droppos", smoothing=0.0)
    assert method._labels().equal(torch.eye(16))

"""NEPA: its loss with attention written out, on the ViT that its recipe names, and what no prediction may see."""

import copy
import math

import torch
import torch.nn.functional as F
from small import shake
from torch import Tensor

from selfsup.encoder import build
from selfsup.method import Batch, Method, TrainInfo, load
from selfsup.parts.patch import unpatchify
from selfsup.sections import Backbone

NEPA = load("nepa")
ROPE = Backbone(
    name="vit_small_patch16_dinov3_qkvb",
    image_size=16,
    patch_size=4,
    width=48,
    depth=2,
    heads=3,
    pool="mean",
    qk_norm=True,
)


def made(setting) -> tuple[Method, Batch]:
    """Return the objective on a small ViT with rotations, normalized queries and keys, and LayerScale."""
    _, batch = setting("nepa", samples=3)
    info = TrainInfo(num_samples=8, num_classes=3, num_steps=10, steps_per_epoch=2, sizes=(16, 16))
    method = NEPA(NEPA.Hyper(), {"image": build(ROPE, NEPA.initialize)}, info)
    for block in method.backbone.trunk.blocks:
        assert block.gamma_1.detach().unique().tolist() == block.gamma_2.detach().unique().tolist()
        torch.testing.assert_close(block.gamma_1.detach(), torch.full((48,), 1e-5))
        block.gamma_1.data.fill_(0.5)
        block.gamma_2.data.fill_(0.5)
    shake(method)
    return method, batch


def turned(x: Tensor) -> Tensor:
    """(3, 16, 16) queries or keys of 4 x 4 patches -> the same, turned by angles of their centers in [-1, 1]"""
    rows = []
    for number in range(16):
        y, right = ((2 * (place + 0.5) / 4 - 1) for place in divmod(number, 4))
        angle = torch.tensor([2 * math.pi * along / 100 ** (4 * k / 16) for along in (y, right) for k in range(4)])
        first, second = x[:, number].chunk(2, dim=1)
        turn = first * angle.cos() - second * angle.sin(), second * angle.cos() + first * angle.sin()
        rows.append(torch.cat(turn, dim=1))
    return torch.stack(rows, dim=1)


def attention(layer: torch.nn.Module, x: Tensor) -> Tensor:
    """(21, 48) -> (21, 48): of five prefix tokens and 16 patches, each of which reads itself and those before it"""
    bias = torch.cat([layer.q_bias, torch.zeros(48), layer.v_bias])
    query, key, value = (x @ layer.qkv.weight.T + bias).view(21, 3, 3, 16).permute(1, 2, 0, 3)
    query, key = layer.q_norm(query), layer.k_norm(key)
    query, key = (torch.cat([part[:, :5], turned(part[:, 5:])], dim=1) for part in (query, key))
    scores = (query @ key.mT / 4).masked_fill(torch.ones(21, 21).triu(1).bool(), -math.inf)
    return layer.proj((scores.softmax(dim=2) @ value).transpose(0, 1).flatten(1))


def test_the_loss_is_worked_out_patch_by_patch(setting) -> None:
    method, batch = made(setting)
    other, losses = copy.deepcopy(method), []
    trunk = other.backbone.trunk
    for image in unpatchify(batch.views[0].value.value, grid=(4, 4), patch=4).split(1):
        patches = trunk.patch_embed(image).flatten(1, -2)[0]
        x = torch.cat([trunk.cls_token[0], trunk.reg_token[0], patches])
        for block in trunk.blocks:
            x = x + block.gamma_1 * attention(block.attn, block.norm1(x))
            x = x + block.gamma_2 * block.mlp(block.norm2(x))
        predicted = F.normalize(trunk.norm(x)[4:-1], dim=1)
        losses.append(-(predicted * F.normalize(patches.detach(), dim=1)).sum(dim=1).mean())
    loss, expected = method(batch).loss, torch.stack(losses).mean()
    torch.testing.assert_close(loss, expected)
    loss.backward()
    expected.backward()
    for (name, ours), theirs in zip(method.named_parameters(), other.parameters(), strict=True):
        if ours.requires_grad:
            torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-3, atol=1e-6, msg=name)


def test_no_prediction_depends_on_its_own_or_a_later_patch(setting) -> None:
    method, batch = made(setting)
    tokens = batch.views[0].value
    before = method._predicted(tokens)
    assert before.shape == (3, 16, 48)
    for patch in (0, 7, 15):
        value = tokens.value.clone()
        value[:, patch] += 1.0
        changed = (method._predicted(tokens._replace(value=value)) != before).any(dim=2).any(dim=0)
        assert changed.tolist() == [number > patch for number in range(16)]


def test_without_a_prefix_the_first_patch_is_not_predicted(setting) -> None:
    _, batch = setting("nepa")
    bare = ROPE.model_copy(update={"name": "vit_huge_patch14_gap_224", "qk_norm": False})
    info = TrainInfo(num_samples=8, num_classes=3, num_steps=10, steps_per_epoch=2, sizes=(16, 16))
    method = NEPA(NEPA.Hyper(), {"image": build(bare, NEPA.initialize)}, info)
    assert method._predicted(batch.views[0].value).shape == (8, 15, 48)
    assert method(batch).loss.isfinite()

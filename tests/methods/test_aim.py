"""AIM: patch after patch through timm's layers with attention written out, and through lightly's."""

import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from lightly.models.modules.heads_timm import AIMPredictionHead
from lightly.models.modules.masked_causal_vision_transformer import MaskedCausalVisionTransformer
from lightly.models.utils import get_2d_sincos_pos_embed
from torch import Tensor, nn

from selfsup.method import Batch, Method, load
from selfsup.parts.patch import unpatchify


def read(method: Method, batch: Batch, first: list[int]) -> Tensor:
    """The trunk on each sample alone; token by token, the softmax is taken over what it may read."""
    trunk, rows = method.backbone.trunk, []
    images = unpatchify(batch.views[0].value.value, grid=(4, 4), patch=4)
    for image, length in zip(images, first, strict=True):
        x = torch.cat([trunk.cls_token[0], trunk.patch_embed(image[None])[0]]) + trunk.pos_embed[0]
        for block in trunk.blocks:
            q, k, v = block.attn.qkv(block.norm1(x)).view(17, 3, 3, 16).unbind(1)  # (token, head, channel)
            mixed = []
            for token in range(17):
                reads = [0, *(other for other in range(1, 17) if other <= max(token, length))]
                weight = (torch.einsum("hc,thc->th", q[token], k[reads]) / math.sqrt(16)).softmax(dim=0)
                mixed.append(torch.einsum("th,thc->hc", weight, v[reads]).flatten())
            x = x + block.attn.proj(torch.stack(mixed))
            x = x + block.mlp(block.norm2(x))
        rows.append(trunk.norm(x)[1:])
    return torch.stack(rows)


@pytest.mark.parametrize(("prefix", "norm"), [(True, True), (False, False)])
def test_the_loss_is_worked_out_patch_by_patch(prefix: bool, norm: bool, setting) -> None:
    method, batch = setting("aim", prefix=prefix, norm_pix_loss=norm)
    first = [1 + int(draw * 15) if prefix else 1 for draw in batch.draws[:, 0].tolist()]
    assert not prefix or len(set(first)) > 3
    hidden, head, losses = read(method, batch, first), method.head, []
    x = (hidden + head.positions) @ head.embed.weight.T
    for layer, block in enumerate(head.blocks):
        inner = torch.nn.functional.gelu(head.norms[layer](x) @ block.fc1.weight.T)
        x = x + inner @ block.fc2.weight.T
    painted = head.norms[-1](x) @ head.paint.weight.T
    for sample, length in enumerate(first):
        errors = []
        for patch in range(length, 16):
            target = batch.views[0].value.value[sample, patch]
            if norm:
                target = (target - target.mean()) / (target.var() + 1e-6).sqrt()
            errors.append((painted[sample, patch - 1] - target).square().mean())
        losses.append(torch.stack(errors).mean())
    loss, expected = method(batch).loss, torch.stack(losses).mean()
    torch.testing.assert_close(loss, expected)
    weights = [*method.backbone.trunk.blocks.parameters(), *head.parameters()]
    for ours, theirs in zip(torch.autograd.grad(loss, weights), torch.autograd.grad(expected, weights), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-6)


def test_predictions_are_those_of_lightlys_transformer_and_head(setting) -> None:
    method, batch = setting("aim", double=True)
    trunk, first = method.backbone.trunk, method._first(batch)
    theirs = MaskedCausalVisionTransformer(16, 4, embed_dim=48, depth=2, num_heads=3, num_classes=0).double()
    theirs.load_state_dict(trunk.state_dict())
    head = AIMPredictionHead(48, 48, hidden_dim=32, num_blocks=1, norm_layer=partial(nn.LayerNorm, eps=1e-6)).double()
    head.load_state_dict(dict(zip(head.state_dict(), ordered(method.head), strict=True)))
    mask = F.pad(torch.arange(16) >= first[:, None], (1, 0), value=False)
    images = unpatchify(batch.views[0].value.value, grid=(4, 4), patch=4)
    position = torch.from_numpy(get_2d_sincos_pos_embed(48, 4, cls_token=False))
    expected = head(theirs.forward_features(images, mask=mask)[:, 1:] + position)[:, :-1]
    torch.testing.assert_close(method._next(batch.views[0].value, first), expected.float(), rtol=1e-5, atol=1e-6)


def ordered(head: nn.Module) -> list[Tensor]:
    """The weights of our head of one block in the order of lightly's."""
    [block], (norm, last) = head.blocks, head.norms
    parts = head.embed, norm, block, last, head.paint
    return [weight for part in parts for weight in part.state_dict().values()]


def test_no_prediction_depends_on_its_own_or_a_later_patch(setting) -> None:
    method, batch = setting("aim")
    tokens, first = batch.views[0].value, torch.full((8,), 5)
    before = method._next(tokens, first)
    for patch in (7, 15):
        value = tokens.value.clone()
        value[:, patch] += 1.0
        changed = (method._next(tokens._replace(value=value), first) != before).any(dim=2).any(dim=0)
        assert changed.tolist() == [number >= patch for number in range(15)]


def test_lengths_of_the_first_part_are_uniform(setting) -> None:
    method, batch = setting("aim")
    draws = torch.linspace(0, 1 - 2**-24, 1500)[:, None]
    view = batch.views[0]._replace(value=batch.views[0].value._replace(value=torch.zeros(1500, 16, 48)))
    first = method._first(batch._replace(views=(view,), draws=draws))
    assert torch.bincount(first).tolist() == [0, *[100] * 15]


def test_pictures_show_what_was_read_and_what_is_predicted(setting) -> None:
    method, batch = setting("aim", norm_pix_loss=False)
    first, pixels = method._first(batch), batch.views[0].value.value
    asked = torch.arange(16) >= first[:, None]
    assert method.seen(batch)[~asked].equal(pixels[~asked])
    assert not method.seen(batch)[asked].any()
    error = (method.reconstruct(batch) - pixels).square().mean(dim=2)
    assert not error[~asked].any()
    torch.testing.assert_close(method(batch).loss, (error.sum(dim=1) / asked.sum(dim=1)).mean())


def test_evaluation_reads_in_both_directions(setting) -> None:
    method, batch = setting("aim")
    view = batch.views[0].value
    pooled = method.encoder("image").pooled(view)
    view.value[:, -1] += 1.0
    assert not method.encoder("image").pooled(view).equal(pooled)
    assert load("aim").views(load("aim").Hyper()).draws == 1

"""SemAIM: patch by patch through timm's layers with attention written out; its orders; what nothing may depend on."""

import math

import pytest
import scipy.ndimage
import torch
import torch.nn.functional as F
from small import shake
from torch import Tensor

from selfsup.method import Batch, Method
from selfsup.parts.noise import uniform
from selfsup.parts.patch import patchify, unpatchify


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """(48,), (K, 48), (K, 48) -> (48,): three heads of 16 channels."""
    heads = [slice(16 * head, 16 * head + 16) for head in range(3)]
    return torch.cat([(k[:, part] @ q[part] / math.sqrt(16)).softmax(0) @ v[:, part] for part in heads])


def predictions(method: Method, image: Tensor, order: list[int]) -> Tensor:
    """(3, 16, 16) -> (16, V): states read the class token, earlier patches and themselves; queries not their own."""
    trunk, decoder = method.backbone.trunk, method.decoder
    x = torch.cat([trunk.cls_token[0], trunk.patch_embed(image[None])[0]]) + trunk.pos_embed[0]
    before = [[0, *(other + 1 for other in order[: order.index(patch)])] for patch in range(16)]
    query = decoder.positions
    for block, other in zip(trunk.blocks, decoder.blocks, strict=True):
        q, k, v = block.attn.qkv(block.norm1(x)).chunk(3, dim=1)
        reads = [[0], *([*seen, patch + 1] for patch, seen in enumerate(before))]
        x = x + block.attn.proj(torch.stack([attend(q[token], k[seen], v[seen]) for token, seen in enumerate(reads)]))
        x = x + block.mlp(block.norm2(x))
        q, context = other.q(other.norm1(query)), other.norm1(x)
        k, v = other.k(context), other.v(context)
        query = query + other.proj(
            torch.stack([attend(q[patch], k[seen], v[seen]) for patch, seen in enumerate(before)])
        )
        query = query + other.mlp(other.norm2(query))
    return method.head(trunk.norm(query))


def semantic_order(method: Method, image: Tensor, chance: list[float]) -> list[int]:
    with torch.no_grad():
        first, *rest = method.backbone.trunk.forward_features(image[None])[0]
    like = [float(first @ patch / (first.norm() * patch.norm())) for patch in rest]
    row, column = divmod(like.index(max(like)), 4)
    return sorted(range(16), key=lambda n: ((n // 4 - row) ** 2 + (n % 4 - column) ** 2, chance[n]))


def orders(method: Method, batch: Batch) -> list[list[int]]:
    return method._ranks(batch).argsort(dim=1).tolist()


def images(batch: Batch) -> Tensor:
    return unpatchify(batch.views[0].value.value, grid=(4, 4), patch=4)


@pytest.mark.parametrize("norm", [True, False])
def test_the_loss_is_worked_out_patch_by_patch(norm: bool, setting) -> None:
    method, batch = setting("semaim", double=True, norm_pix_loss=norm, samples=4)
    shake(method)
    blurred = scipy.ndimage.gaussian_filter(images(batch).numpy(), 1.0, axes=(2, 3), mode="constant", truncate=4.0)
    targets, losses = patchify(torch.from_numpy(blurred).float(), 4).value.double(), []
    for image, order, target in zip(images(batch), orders(method, batch), targets, strict=True):
        if norm:
            target = (target - target.mean(1, keepdim=True)) / (target.var(1, keepdim=True) + 1e-6).sqrt()
        losses.append((predictions(method, image, order) - target).square().mean())
    compare(method, method(batch).loss, torch.stack(losses).mean())


def test_features_are_the_teachers_by_their_angle(setting) -> None:
    method, batch = setting("semaim", double=True, target="features", samples=4)
    losses = []
    for image, order in zip(images(batch), orders(method, batch), strict=True):
        told = method.teacher.method.backbone.trunk.forward_features(image[None])[0, 1:].detach()
        losses.append((2 - 2 * F.cosine_similarity(predictions(method, image, order), told, dim=1)).mean())
    compare(method, method(batch).loss, torch.stack(losses).mean())


def compare(method: Method, loss: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(loss.double(), expected.double(), rtol=1e-5, atol=0)
    weights = [*method.backbone.trunk.blocks.parameters(), *method.decoder.parameters(), *method.head.parameters()]
    for ours, theirs in zip(torch.autograd.grad(loss, weights), torch.autograd.grad(expected, weights), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-6)


def test_patches_come_by_distance_from_the_one_most_like_the_class_token(setting) -> None:
    method, batch = setting("semaim")
    drawn = uniform(batch.draws, (16,)).tolist()
    expected = [semantic_order(method, image, own) for image, own in zip(images(batch), drawn, strict=True)]
    assert orders(method, batch) == expected


def test_other_orders(setting) -> None:
    method, batch = setting("semaim", order="raster")
    assert orders(method, batch) == [list(range(16))] * 8
    method, batch = setting("semaim", order="random", samples=2000)
    first = torch.tensor(orders(method, batch))[:, 0]
    assert first.bincount(minlength=16).min() > 80  # of 125, uniformly
    method, batch = setting("semaim", order="similarity")
    hidden = method.backbone(batch.views[0].value)
    like = F.cosine_similarity(hidden[:, :1], hidden[:, 1:], dim=2)
    assert like.gather(1, torch.tensor(orders(method, batch))).diff(dim=1).le(0).all()


def test_no_prediction_depends_on_its_own_or_a_later_patch(setting) -> None:
    method, batch = setting("semaim")
    tokens, rank = batch.views[0].value, torch.randperm(16, generator=torch.Generator().manual_seed(0)).expand(8, -1)
    before = method._predicted(tokens, rank)
    for patch in (3, 11):
        value = tokens.value.clone()
        value[:, patch] += 1.0
        changed = (method._predicted(tokens._replace(value=value), rank) != before).any(dim=2).any(dim=0)
        assert changed.tolist() == [own > rank[0, patch] for own in rank[0].tolist()]


def test_a_picture_shows_the_first_half_and_every_prediction(setting) -> None:
    method, batch = setting("semaim", norm_pix_loss=False, blur=0.0)
    pixels, rank = batch.views[0].value.value, method._ranks(batch)
    assert method.seen(batch).equal(pixels.masked_fill(rank[..., None] >= 8, 0.0))
    torch.testing.assert_close((method.reconstruct(batch) - pixels).square().mean(), method(batch).loss)


def test_a_picture_of_features_shows_the_patches_that_fit_them(setting) -> None:
    method, batch = setting("semaim", target="features")
    pixels = batch.views[0].value.value
    predicted = method._predicted(batch.views[0].value, method._ranks(batch))[3, 5]
    told = method.teacher.features(batch.views[0].value, (4, 4))[1].flatten(0, 1)
    best = F.cosine_similarity(predicted[None], told, dim=1).argmax()
    assert method.reconstruct(batch)[3, 5].equal(pixels.flatten(0, 1)[best])

"""ROPIM: its projection as a matrix, its loss through matrices and timm's layers, and how patches are sketched."""

import math

import pytest
import torch
from torch import Tensor

from selfsup.method import load
from selfsup.parts.patch import unpatchify

ROPIM = load("ropim")


def matrices(bucket: Tensor, sign: Tensor) -> Tensor:
    """-> (B, N, N): from sketches that are made entry by entry, each by the pseudo-inverse of the sketch."""
    made = []
    for places, signs in zip(bucket.tolist(), sign.tolist(), strict=True):
        sketch = torch.zeros(max(places) + 1, len(places))
        for patch, (place, one) in enumerate(zip(places, signs, strict=True)):
            sketch[place, patch] = one
        made.append(torch.linalg.pinv(sketch) @ sketch)
    return torch.stack(made)


def test_the_loss_is_worked_out_with_matrices(setting) -> None:
    method, batch = setting("ropim")
    trunk, tokens = method.backbone.trunk, batch.views[0].value
    matrix = matrices(*method._sketch(batch))
    torch.testing.assert_close(matrix @ matrix, matrix, rtol=0, atol=1e-5)  # a projection
    patches = matrix @ trunk.patch_embed(unpatchify(tokens.value, grid=(4, 4), patch=4))
    x = torch.cat([trunk.cls_token.expand(8, -1, -1), patches], dim=1) + trunk.pos_embed
    for block in trunk.blocks:
        x = block(x)
    painted = method.head(trunk.norm(x)[:, 1:])
    expected = ((torch.eye(16) - matrix) @ (tokens.value - painted)).abs().mean()
    loss = method(batch).loss
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=0)
    torch.testing.assert_close(method.reconstruct(batch), painted, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(method.seen(batch), matrix @ tokens.value, rtol=1e-3, atol=1e-4)
    weights = [*trunk.blocks.parameters(), *method.head.parameters()]
    for ours, theirs in zip(torch.autograd.grad(loss, weights), torch.autograd.grad(expected, weights), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-2, atol=1e-5)


@pytest.mark.parametrize("ratio", [0.14, 0.25, 0.3])
def test_every_bucket_is_in_every_run_of_patches(ratio: float, setting) -> None:
    method, batch = setting("ropim", ratio=ratio)
    bucket, sign = method._sketch(batch)
    number = math.ceil(16 * ratio)
    for row in bucket.split(number, dim=1):
        assert all(len(set(buckets)) == row.shape[1] for buckets in row.tolist())
    assert bucket.max() == number - 1
    assert sign.sum(dim=1).tolist() == [0.0] * 8
    assert len({tuple(row) for row in bucket.tolist()}) > 4


def test_buckets_and_signs_are_uniform(setting) -> None:
    method, batch = setting("ropim", ratio=0.25)
    torch.manual_seed(0)
    view = batch.views[0]._replace(value=batch.views[0].value._replace(value=torch.zeros(4000, 16, 1)))
    bucket, sign = method._sketch(batch._replace(views=(view,), draws=torch.rand(4000, 2)))
    for place in range(4):
        assert ((bucket == place).double().mean(dim=0) - 0.25).abs().max() < 4.5 * (0.25 * 0.75 / 4000) ** 0.5
    assert sign.double().mean(dim=0).abs().max() < 4.5 / 4000**0.5
    assert abs((sign[:, 0] * bucket[:, 0]).double().mean().item()) < 4.5 * (3.5 / 4000) ** 0.5

"""CAPI: its loss by lightly's, its predictor by torch's attention, its masks by their distribution."""

import copy

import pytest
import torch
import torch.nn.functional as F
from lightly.loss import CAPILoss
from precision import double_precision
from small import shake
from torch import Tensor

from selfsup.inverseblock import InverseBlockMask
from selfsup.method import load
from selfsup.parts.sinkhorn import sinkhorn_by_place

CAPI = load("capi")


def test_the_loss_is_lightlys_for_predictions_and_for_clusters(setting, moved) -> None:
    method, batch = setting("capi", double=True)
    shake(method)
    moved(method.teacher)
    other, [view] = copy.deepcopy(method), batch.views
    asked = view.mask.targets[:, 0]
    features = F.normalize(other.teacher(view.value)[:, 1:].detach(), dim=2)
    scores = features @ other.clusters.weight.T + other.clusters.bias
    hidden = other.predictor(other.backbone(view.value, view.mask.keep), view.mask.keep, asked)
    rows = other.head.lengths * other.head.weight / other.head.weight.norm(dim=1, keepdim=True)
    logits = hidden / hidden.norm(dim=2, keepdim=True) @ rows.T
    theirs = CAPILoss()
    with double_precision():
        out = method(batch)
    predicted, clustered = theirs(scores, logits, asked), theirs(scores, scores)
    torch.testing.assert_close(out.log["predicted"].double(), predicted.double(), rtol=1e-6, atol=0)
    torch.testing.assert_close(out.log["clustered"].double(), clustered.double(), rtol=1e-6, atol=0)
    out.loss.backward()
    (predicted + clustered).backward()
    for (name, ours), own in zip(method.named_parameters(), other.parameters(), strict=True):
        if ours.requires_grad:
            torch.testing.assert_close(ours.grad, own.grad, rtol=1e-5, atol=1e-8, msg=name)


def turned(x: Tensor, numbers: Tensor) -> Tensor:
    """(M, 16), (M,) -> (M, 16): each row turned by the center of its place of 4 x 4, as complex numbers"""
    center = (2 * (torch.stack([numbers // 4, numbers % 4], dim=1) + 0.5) / 4 - 1).double()
    angle = 2 * torch.pi * center[:, :, None] / 100 ** (torch.arange(4).double() / 4)
    whole = torch.complex(*x.chunk(2, dim=1)) * torch.polar(torch.ones_like(angle), angle).flatten(1)
    return torch.cat([whole.real, whole.imag], dim=1)


def test_the_predictor_reads_visible_tokens_by_turned_attention(setting) -> None:
    method, batch = setting("capi", double=True, asked=0.5)
    shake(method)
    [view], [block] = batch.views, method.predictor.blocks
    keep, asked = view.mask.keep, view.mask.targets[:, 0]
    seen = torch.randn(8, 1 + keep.shape[1], 48, dtype=torch.float64)
    predicted = method.predictor.double()(seen, keep, asked)
    for sample in range(8):
        hidden = method.predictor.mask_token[0].expand(asked.shape[1], -1)
        query, key, value = block.q(block.norm1(hidden)), block.k(seen[sample]), block.v(seen[sample])
        heads = []
        for q, k, v in zip(*(part.split(16, dim=1) for part in (query, key, value)), strict=True):
            k = torch.cat([k[:1], turned(k[1:], keep[sample])])
            heads.append((turned(q, asked[sample]) @ k.T / 4).softmax(dim=1) @ v)
        hidden = hidden + block.proj(torch.cat(heads, dim=1))
        hidden = hidden + block.mlp(block.norm2(hidden))
        expected = F.layer_norm(hidden, (48,))
        torch.testing.assert_close(predicted[sample], expected, rtol=1e-5, atol=1e-6)


def test_at_each_place_the_batch_uses_all_clusters_alike() -> None:
    torch.manual_seed(0)
    codes = sinkhorn_by_place(torch.randn(12, 5, 4), epsilon=0.3, iterations=50)
    torch.testing.assert_close(codes.sum(dim=2), torch.ones(12, 5))
    torch.testing.assert_close(codes.sum(dim=0), torch.full((5, 4), 3.0))
    alone = sinkhorn_by_place(torch.randn(1, 5, 4), epsilon=0.3, iterations=3)
    torch.testing.assert_close(alone, torch.full((1, 5, 4), 0.25))  # of one sample each cluster has its share


def test_teacher_and_clusters_move_as_the_schedule_says(setting) -> None:
    method, _ = setting("capi", momentum_warmup=0.5, momentum=0.8, momentum_end=1.0)
    for t, momentum in ((0.25, 0.9), (0.5, 0.8), (0.75, 0.9)):
        before = [weight.clone() for weight in method.teacher.parameters()]
        with torch.no_grad():
            for own, weight in zip(method.teacher.parameters(), method.backbone.parameters(), strict=True):
                weight.copy_(own + 1)
        method.after_step(t, {})
        for old, new in zip(before, method.teacher.parameters(), strict=True):
            torch.testing.assert_close(new, old + (1 - momentum), rtol=1e-4, atol=1e-5)
    assert method.param_options("clusters.weight", method.clusters.weight).lr_scale == 0.5
    assert method.param_options("head.weight", method.head.weight).lr_scale == 1.0


GRIDS = [((14, 14), 0.65, 0.05), ((16, 16), 0.65, 0.05), ((6, 6), 0.75, 0.2), ((4, 8), 0.5, 1.0)]


@pytest.mark.parametrize(("grid", "ratio", "asked"), GRIDS)
def test_masks_hide_all_but_a_rectangle_shifted_anywhere(grid: tuple[int, int], ratio: float, asked: float) -> None:
    torch.manual_seed(0)
    rule, number = InverseBlockMask(ratio, asked), 4000
    tokens = grid[0] * grid[1]
    hidden = int(tokens * ratio)
    mask = rule.draw(torch.rand(number, rule.num_draws(grid)), grid)
    assert mask.keep.shape == (number, tokens - hidden)
    assert mask.targets.shape == (number, 1, max(1, int(hidden * asked)))
    assert mask.order.sort(dim=1).values.equal(torch.arange(tokens).expand(number, -1))
    assert (mask.targets[:, 0, :, None] == mask.hide[:, None]).any(dim=2).all()
    assert mask.targets[:, 0].sort(dim=1).values.diff(dim=1).gt(0).all()  # no token twice
    share = mask.removed.float().mean(dim=0)
    torch.testing.assert_close(share, torch.full_like(share, hidden / tokens), rtol=0, atol=0.04)  # anywhere alike
    asked_share = torch.zeros(tokens).index_add_(0, mask.targets.flatten(), torch.ones(mask.targets.numel()))
    even = mask.targets.numel() / tokens
    assert asked_share.sub(even).abs().max() < 6 * even**0.5
    for keep in mask.keep[:50]:
        seen = torch.zeros(grid, dtype=torch.bool)
        seen.view(-1)[keep] = True
        shapes = [seen.roll((down, right), (0, 1)) for down in range(grid[0]) for right in range(grid[1])]
        assert any(is_rectangle(shape) for shape in shapes)


def is_rectangle(seen: Tensor) -> bool:
    """Return whether the tokens fill the rows of a rectangle in a corner, the last one perhaps in part."""
    rows, columns = seen.any(dim=1).sum(), seen.any(dim=0).sum()
    whole = torch.zeros_like(seen)
    whole[:rows, :columns] = True
    whole.view(-1)[whole.view(-1).cumsum(0) > seen.sum()] = False
    sides = rows / columns
    return bool(whole.equal(seen) and 0.3 < sides < 3)

"""FlexPredict: I-JEPA's loss with noise at targets, which lightly's predictor is given as positions of its own."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from selfsup.method import Batch, Method, load
from selfsup.multiblock import MultiBlockMask
from selfsup.parts.noise import gaussian

FLEXPREDICT = load("flexpredict")


def worked_out(method: Method, batch: Batch, drawn: Tensor) -> Tensor:
    """Target by target, through the predictor's own layers. drawn: (B, S, M, D)"""
    view, predictor, losses = batch.views[0], method.predictor, []
    seen = predictor.embed(method.backbone(view.value, view.mask.keep))
    features = method.teacher(view.value)[:, 1:].detach()
    features = (features - features.mean(2, keepdim=True)) / (features.var(2, keepdim=True, correction=0) + 1e-5).sqrt()
    for sample, sets in enumerate(view.mask.targets):
        context = torch.cat([seen[sample, :1], seen[sample, 1:] + predictor.positions[view.mask.keep[sample]]])
        for block, numbers in enumerate(sets):
            shift = method.hyper.noise * drawn[sample, block] @ predictor.embed.weight.T
            asked = predictor.mask_token[0] + predictor.positions[numbers] + shift
            hidden = predictor.norm(predictor.blocks(torch.cat([context, asked])[None])[0, len(context) :])
            apart = (predictor.head(hidden) - features[sample, numbers]).abs()
            losses.append(torch.where(apart < 1, apart.square() / 2, apart - 0.5).mean())
    return torch.stack(losses).mean()


@pytest.mark.parametrize("sigma", [0.0, 0.5])
def test_the_loss_is_worked_out_target_by_target(sigma: float, setting, moved) -> None:
    method, batch = setting("flexpredict", noise=sigma)
    moved(method.predictor, method.teacher)
    drawn = gaussian(batch.draws, (*batch.views[0].mask.targets.shape[1:], 48))
    loss, expected = method(batch).loss, worked_out(method, batch, drawn)
    torch.testing.assert_close(loss, expected)
    weights = [*method.backbone.trunk.blocks.parameters(), *method.predictor.parameters()]
    for ours, theirs in zip(torch.autograd.grad(loss, weights), torch.autograd.grad(expected, weights), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-6)


def test_places_scatter_as_the_embedding_says(setting) -> None:
    """The noise of many targets has the covariance of the embedding times its transpose, times the variance."""
    method, batch = setting("flexpredict", noise=0.5)
    matrix = method.predictor.embed.weight.detach()
    drawn = gaussian(batch.draws, (4000, 48)).flatten(0, 1)
    found = (F.linear(0.5 * drawn, matrix)).T.cov()
    expected = 0.25 * matrix @ matrix.T
    assert (found - expected).abs().max() < 0.05 * expected.diagonal().mean()


def test_an_objective_asks_for_i_jepas_blocks_and_two_numbers() -> None:
    views = FLEXPREDICT.views(FLEXPREDICT.Hyper())
    assert views.specs[0].mask == MultiBlockMask()
    assert views.draws == 2


def test_evaluation_gets_the_teacher(setting) -> None:
    method, _ = setting("flexpredict")
    assert method.encoder("image") is method.teacher

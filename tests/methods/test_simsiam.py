"""SimSiam against lightly's loss, with its targets held still; and the pace of its predictor."""

import pytest
import torch
from lightly.loss import NegativeCosineSimilarity

from selfsup.method import load
from selfsup.optim import build, schedule
from selfsup.sections import Optim

SimSiam = load("simsiam")


def test_loss_and_gradient_are_lightlys_with_both_targets_held_still(setting) -> None:
    method, batch = setting("simsiam")
    one, two = (method.projector(method.backbone.pooled(view.value)) for view in batch.views)
    targets = one.detach().clone(), two.detach().clone()
    error = NegativeCosineSimilarity()
    expected = (error(method.predictor(one), targets[1]) + error(method.predictor(two), targets[0])) / 2
    loss, weight = method(batch).loss, method.projector[0].weight
    torch.testing.assert_close(loss, expected)
    [ours], [theirs] = torch.autograd.grad(loss, weight), torch.autograd.grad(expected, weight)
    assert theirs.abs().max() > 1e-4
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("constant", "last"), [(True, 0.1), (False, 0.1 * (1 - 0.5**0.5) / 2)])
def test_the_predictor_keeps_its_peak_while_the_rest_goes_down_a_cosine(constant: bool, last: float, setting) -> None:
    method, _ = setting("simsiam", constant=constant)
    told = Optim(name="sgd", lr=0.05)
    optimizer = build(method, told)
    schedule(optimizer, told, 3, steps=4, warmup=0, batch=512)
    found = {weight: group["lr"] for group in optimizer.param_groups for weight in group["params"]}
    assert [found[weight] for weight in method.predictor.parameters()] == pytest.approx([last] * 5)
    others = [*method.backbone.parameters(), *method.projector.parameters()]
    [down] = {found[weight] for weight in others if weight.requires_grad}
    assert down == pytest.approx(0.1 * (1 - 0.5**0.5) / 2)


def test_half_precision_moves_the_mean_cosine_little(setting) -> None:
    """What the test of all objectives asks for relative to the loss, which is near zero before training."""
    method, batch = setting("simsiam")
    exact = method(batch).loss
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = method(batch).loss
    torch.testing.assert_close(rough, exact, rtol=0, atol=0.01)


def test_the_sign_of_collapse_is_seen(setting) -> None:
    method, batch = setting("simsiam")
    assert method(batch).log["projection_std"] > 0.5
    method.projector[-1].eval()  # without its normalization by the batch a constant stays one
    torch.nn.init.zeros_(method.projector[-2].weight)
    method.projector[-1].running_mean.fill_(1.0)
    assert method(batch).log["projection_std"] < 1e-3


def test_the_heads_are_the_papers() -> None:
    """Section 3: a projector of 2048, 2048, 2048; a predictor of 512, then 2048, whose output is not normalized."""
    hyper = SimSiam.Hyper()
    assert (hyper.layers, hyper.dim, hyper.bottleneck) == (3, 2048, 512)

"""TiCo step after step against lightly's loss, which keeps a covariance of its own, and keys moved by hand."""

import pytest
import torch
import torch.nn.functional as F
from lightly.loss import TiCoLoss

from selfsup.parts.schedules import cosine


def test_loss_covariance_and_keys_over_four_steps(setting) -> None:
    method, batch = setting("tico", momentum=0.9, decay=0.8, contrast=5.0)
    theirs, optimizer = TiCoLoss(beta=0.8, rho=5.0), torch.optim.SGD(method.parameters(), lr=0.1)
    expected = {name: weight.clone() for name, weight in method.key.named_parameters()}
    for step in range(4):
        query = method.projector(method.backbone.pooled(batch.views[0].value))
        key = method.key_projector(method.key.pooled(batch.views[1].value))
        out = method(batch)
        torch.testing.assert_close(out.loss, theirs(query, key))
        optimizer.zero_grad()
        out.loss.backward()
        optimizer.step()
        method.after_step(step / 4, {name: value.detach() for name, value in out.aux.items()})
        torch.testing.assert_close(method.covariance, theirs.C)
        tau, online = cosine(step / 4, 0.9, 1.0), dict(method.backbone.named_parameters())
        expected = {name: tau * weight + (1 - tau) * online[name].detach() for name, weight in expected.items()}
    assert method.covariance.trace() > 0.5  # of a batch of unit vectors 1, of nothing 0
    torch.testing.assert_close(dict(method.key.named_parameters()), expected)


def test_only_queries_are_learned_from(setting) -> None:
    method, batch = setting("tico")
    batch.views[1].value.value.requires_grad_()
    method(batch).loss.backward()
    assert batch.views[1].value.value.grad is None
    assert all(weight.grad is None for weight in [*method.key.parameters(), *method.key_projector.parameters()])


@pytest.mark.parametrize("through", [False, True])
def test_the_gradient_flows_through_this_batch_where_told_so(setting, through: bool) -> None:
    """The gradient is of q^T C q, C = 0.8 C' + 0.2 Q^T Q / N: by the chain rule of the whole, or with C held."""
    method, batch = setting("tico", decay=0.8, contrast=5.0, batch_gradient=through)
    method.covariance.copy_(torch.eye(len(method.covariance)) / 7)
    method(batch).loss.backward()
    gradient = method.projector[-1].weight.grad.clone()
    method.zero_grad()
    query = F.normalize(method.projector(method.backbone.pooled(batch.views[0].value)), dim=1)
    key = F.normalize(method.key_projector(method.key.pooled(batch.views[1].value)), dim=1).detach()
    part = query.T @ query / len(query)
    moment = 0.8 * method.covariance + 0.2 * (part if through else part.detach())
    (5 * torch.einsum("nd,de,ne->n", query, moment, query).mean() - (query * key).sum(1).mean()).backward()
    torch.testing.assert_close(gradient, method.projector[-1].weight.grad)

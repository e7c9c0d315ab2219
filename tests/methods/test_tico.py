"""TiCo step after step against lightly's loss, which keeps a covariance of its own, and keys moved by hand."""

import torch
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

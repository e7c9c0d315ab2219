"""BYOL against a step worked out from lightly's loss, on teachers moved by hand."""

import copy

import torch
from lightly.loss import NegativeCosineSimilarity

from selfsup.parts.schedules import cosine


def test_the_loss_is_lightlys_in_both_directions(setting, moved) -> None:
    method, batch = setting("byol")
    moved(method.target)
    online = [method.predictor(method.projector(method.backbone.pooled(view.value))) for view in batch.views]
    target = [method.target_projector(method.target.pooled(view.value)) for view in batch.views]
    error = NegativeCosineSimilarity()
    expected = sum(2 + 2 * error(online[i], target[1 - i].detach()) for i in range(2))
    torch.testing.assert_close(method(batch).loss, expected)


def test_the_target_follows_all_weights_but_the_predictors(setting) -> None:
    method, batch = setting("byol", momentum=0.9)
    optimizer = torch.optim.SGD(method.parameters(), lr=0.1)
    expected = {name: weight.clone() for name, weight in method.target.named_parameters()}
    head = copy.deepcopy(method.target_projector[0].weight)
    for step in range(3):
        optimizer.zero_grad()
        method(batch).loss.backward()
        optimizer.step()
        method.after_step(step / 3, {})
        tau = cosine(step / 3, 0.9, 1.0)
        online = dict(method.backbone.named_parameters())
        expected = {name: tau * weight + (1 - tau) * online[name].detach() for name, weight in expected.items()}
        head = tau * head + (1 - tau) * method.projector[0].weight.detach()
    torch.testing.assert_close(dict(method.target.named_parameters()), expected)
    torch.testing.assert_close(method.target_projector[0].weight, head)

"""NNCLR against the paper's algorithm: lightly finds the neighbors, loops work out the loss."""

import torch
import torch.nn.functional as F
from lightly.models.modules import NNMemoryBankModule


def contrast(friend: torch.Tensor, prediction: torch.Tensor, temperature: float) -> torch.Tensor:
    """Eq. 2 with predictions, in float64: the neighbor of each sample picks that sample's prediction."""
    friend, prediction = friend.double(), prediction.double()
    losses = []
    for number, near in enumerate(friend):
        terms = [torch.exp(F.cosine_similarity(near, p, dim=0) / temperature) for p in prediction]
        losses.append(-torch.log(terms[number] / sum(terms)))
    return torch.stack(losses).mean()


def test_three_steps_are_algorithm_1_on_a_queue_of_its_own(setting) -> None:
    method, batch = setting("nnclr", queue=16)
    theirs = NNMemoryBankModule(size=(16, 256))
    theirs.bank, theirs.bank_ptr = method.queue.rows.clone(), torch.zeros(1, dtype=torch.int64)
    for _ in range(3):  # 24 views, round the queue and on
        views = [method.projector(method.backbone.pooled(view.value)) for view in batch.views]
        predictions = [method.predictor(view) for view in views]
        near = [theirs(view.detach(), update=False) for view in views]
        expected = (contrast(near[0], predictions[1], 0.1) + contrast(near[1], predictions[0], 0.1)) / 2
        out = method(batch)
        torch.testing.assert_close(out.loss.double(), expected, rtol=1e-5, atol=0)
        cosine = F.cosine_similarity(views[0], near[0]).mean()
        torch.testing.assert_close(out.log["neighbour_cosine"], cosine.detach())
        method.after_step(0.0, out.aux)
        theirs(F.normalize(views[0].detach(), dim=1), update=True)  # of the first view only


def test_neighbors_are_not_learned_from(setting) -> None:
    """The gradient of the loss is that of a loss in which neighbors are constants."""
    method, batch = setting("nnclr")
    views = [method.projector(method.backbone.pooled(view.value)) for view in batch.views]
    near = [method.queue.rows[torch.cdist(F.normalize(view, dim=1), method.queue.rows).argmin(1)] for view in views]
    fixed = sum(contrast(near[i], method.predictor(views[1 - i]), 0.1) / 2 for i in range(2))
    weight = method.projector[0].weight
    [expected], [found] = (torch.autograd.grad(loss, weight) for loss in (fixed, method(batch).loss))
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-6)

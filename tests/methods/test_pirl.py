"""PIRL: its loss against the paper's, sample by sample in float64; its memory after steps; its negatives."""

import pytest
import torch
import torch.nn.functional as F

from selfsup.parts.contrastive import bank_nce
from selfsup.parts.pretext import pieces, shuffled, turned


def nce(query: torch.Tensor, rows: torch.Tensor, sample: torch.Tensor, chosen: list[int]) -> torch.Tensor:
    """Eq. 3 and 4: minus log h of the positive, minus the sum of log(1 - h) over negatives of other images."""
    query, rows, losses = query.double(), rows.double(), []
    for q, own in zip(query, sample.tolist(), strict=True):
        others = [number for number in chosen if number != own]
        scores = {number: torch.exp(F.cosine_similarity(q, rows[number], dim=0) / 0.07) for number in [own, *others]}
        total = sum(scores.values())
        losses.append(-torch.log(scores[own] / total) - sum(torch.log(1 - scores[number] / total) for number in others))
    return torch.stack(losses).mean()


def evenly(start: torch.Tensor, samples: int, negatives: int) -> list[int]:
    return [(int(start * samples) + k * (samples // negatives)) % samples for k in range(negatives)]


@pytest.mark.parametrize("pretext", ["jigsaw", "rotation"])
def test_three_steps_are_the_papers_on_a_memory_of_its_own(pretext: str, setting) -> None:
    method, batch = setting("pirl", pretext=pretext, invariance=0.3)
    rows = method.memory.rows.clone()
    chosen = evenly(batch.draws[0, 0], samples=8, negatives=5)
    for _ in range(3):
        image = method.projector(method.backbone.pooled(batch.views[0].value))
        draws = batch.draws[:, 1:]
        if pretext == "rotation":
            changed = method.other(method.backbone.pooled(turned(batch.views[1].value, draws[:, 0])))
        else:
            cut = pieces(batch.views[1].value, draws[:, 9:])  # all go through the encoder together
            each = method.other(method.backbone.pooled(cut.reshape(72, *cut.shape[2:]))).reshape(8, 9, -1)
            changed = method.assemble(shuffled(each, draws[:, :9]).reshape(8, -1))
        expected = 0.3 * nce(changed, rows, batch.sample, chosen) + 0.7 * nce(image, rows, batch.sample, chosen)
        out = method(batch)
        torch.testing.assert_close(out.loss.double(), expected, rtol=1e-4, atol=1e-6)
        method.after_step(0.0, out.aux)
        rows = F.normalize((rows + F.normalize(image.detach(), dim=1)) / 2, dim=1)
        torch.testing.assert_close(method.memory.rows, rows)


def test_the_gradient_is_the_papers() -> None:
    rows, query = F.normalize(torch.randn(9, 6), dim=1), torch.randn(4, 6, requires_grad=True)
    sample, chosen = torch.tensor([2, 0, 7, 5]), torch.tensor([1, 2, 4, 7, 8])
    own = sample[:, None] == chosen
    loss = bank_nce(query, rows[sample], rows[chosen], own, temperature=0.07)
    expected = nce(query, rows, sample, chosen.tolist())
    torch.testing.assert_close(loss.double(), expected, rtol=1e-4, atol=1e-6)
    [ours], [theirs] = torch.autograd.grad(loss, query), torch.autograd.grad(expected, query)
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


def test_a_certain_mistake_stays_finite() -> None:
    rows = torch.eye(3)
    query = torch.tensor([[0.0, 1.0, 0.0]], requires_grad=True)
    loss = bank_nce(query, rows[:1], rows[1:], torch.zeros(1, 2, dtype=torch.bool), temperature=0.01)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(query.grad).all()


def test_negatives_are_spread_over_the_memory_and_never_twice_the_same(setting) -> None:
    method, _ = setting("pirl", samples=40, negatives=9)
    for start in (0.0, 0.3, 0.999):
        chosen = method._chosen(torch.tensor([start]))
        assert chosen.tolist() == evenly(torch.tensor(start), samples=40, negatives=9)
        assert len(set(chosen.tolist())) == 9


def test_a_small_data_set_has_as_many_negatives_as_samples(setting) -> None:
    method, _ = setting("pirl", negatives=32000)
    assert sorted(method._chosen(torch.tensor([0.6])).tolist()) == list(range(8))

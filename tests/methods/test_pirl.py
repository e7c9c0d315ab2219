"""PIRL: the paper's loss and the code's, sample by sample in float64; its memory after steps; its negatives."""

import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import torchvision

from selfsup.method import Batch, Method, load
from selfsup.parts import norms
from selfsup.parts.contrastive import bank_scores, even_score, noise_nce, softmax_nce
from selfsup.parts.pretext import pieces, shuffled, turned
from selfsup.spec import read

RECIPE = Path(__file__).parents[2] / "pipelines" / "in1k" / "pirl.yaml"


def by_softmax(query: torch.Tensor, rows: torch.Tensor, sample: torch.Tensor, chosen: list[int]) -> torch.Tensor:
    """Eq. 3 and 4: minus log h of the positive, minus the sum of log(1 - h) over negatives of other images."""
    query, rows, losses = query.double(), rows.double(), []
    for q, own in zip(query, sample.tolist(), strict=True):
        others = [number for number in chosen if number != own]
        scores = {number: torch.exp(F.cosine_similarity(q, rows[number], dim=0) / 0.07) for number in [own, *others]}
        total = sum(scores.values())
        losses.append(-torch.log(scores[own] / total) - sum(torch.log(1 - scores[number] / total) for number in others))
    return torch.stack(losses).mean()


def exponents(query: torch.Tensor, rows: torch.Tensor, sample: torch.Tensor, chosen: list[int]) -> torch.Tensor:
    """-> (N, 1 + K): exp(cosine / 0.07) of each query with its own row, then with those chosen."""
    return torch.stack(
        [
            torch.stack([torch.exp(q @ rows[number] / q.norm() / 0.07) for number in (own, *chosen)])
            for q, own in zip(query.double(), sample.tolist(), strict=True)
        ]
    )


def by_noise(exponents: torch.Tensor, partition: float, samples: int) -> torch.Tensor:
    """NPID, section 3.2: P = exp / Z beside K of noise, each of probability 1 / n; own rows are noise, too."""
    negatives, losses = exponents.shape[1] - 1, []
    for row in exponents:
        share = [p / (p + negatives / samples) for p in row / partition]
        losses.append(-torch.log(share[0]) - sum(torch.log(1 - h) for h in share[1:]))
    return torch.stack(losses).mean()


def evenly(start: torch.Tensor, samples: int, negatives: int) -> list[int]:
    return [(int(start * samples) + k * (samples // negatives)) % samples for k in range(negatives)]


def embedded(method: Method, batch: Batch, pretext: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Return g of the transformed images, and f of the images."""
    image, draws = method.projector(method.backbone.pooled(batch.views[0].value)), batch.draws[:, 1:]
    if pretext == "rotation":
        return method.other(method.backbone.pooled(turned(batch.views[1].value, draws[:, 0]))), image
    cut = pieces(batch.views[1].value, draws[:, 9:27]).clone()
    for sample in range(8):
        for number in range(9):
            if draws[sample, 27 + number] < 0.5:
                cut[sample, number] = torchvision.transforms.functional.hflip(cut[sample, number])
    each = method.other(method.backbone.pooled(cut.reshape(72, *cut.shape[2:]))).reshape(8, 9, -1)  # all together
    return method.assemble(shuffled(each, draws[:, :9]).reshape(8, -1)), image


@pytest.mark.parametrize("loss", ["softmax", "nce"])
@pytest.mark.parametrize("pretext", ["jigsaw", "rotation"])
def test_three_steps_are_by_hand_on_a_memory_of_its_own(pretext: str, loss: str, setting) -> None:
    method, batch = setting("pirl", pretext=pretext, loss=loss, invariance=0.3)
    rows, partition = method.memory.rows.clone(), 0.0
    chosen = evenly(batch.draws[0, 0], samples=8, negatives=5)
    for _ in range(3):
        changed, image = embedded(method, batch, pretext)
        if loss == "softmax":
            losses = [by_softmax(x, rows, batch.sample, chosen) for x in (changed, image)]
        else:
            both = [exponents(x, rows.double(), batch.sample, chosen) for x in (changed, image)]
            partition = partition or 8 * both[0].mean().item()  # of the first step, and kept
            losses = [by_noise(each, partition, samples=8) for each in both]
        expected = 0.3 * losses[0] + 0.7 * losses[1]
        out = method(batch)
        torch.testing.assert_close(out.loss.double(), expected, rtol=1e-4, atol=1e-6)
        method.after_step(0.0, out.aux)
        rows = F.normalize((rows + F.normalize(image.detach(), dim=1)) / 2, dim=1)
        torch.testing.assert_close(method.memory.rows, rows)


def test_the_gradient_is_the_papers() -> None:
    rows, query = F.normalize(torch.randn(9, 6), dim=1), torch.randn(4, 6, requires_grad=True)
    sample, chosen = torch.tensor([2, 0, 7, 5]), torch.tensor([1, 2, 4, 7, 8])
    own = sample[:, None] == chosen
    loss = softmax_nce(bank_scores(query, rows[sample], rows[chosen], temperature=0.07), own)
    expected = by_softmax(query, rows, sample, chosen.tolist())
    torch.testing.assert_close(loss.double(), expected, rtol=1e-4, atol=1e-6)
    [ours], [theirs] = torch.autograd.grad(loss, query), torch.autograd.grad(expected, query)
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


def test_the_gradient_against_noise_is_npids() -> None:
    rows, query = F.normalize(torch.randn(9, 6), dim=1), torch.randn(4, 6, requires_grad=True)
    sample, chosen = torch.tensor([2, 0, 7, 5]), [1, 2, 4, 7, 8]
    partition = 30.0  # as likely as noise: an entry of exp = Z K / n
    loss = noise_nce(bank_scores(query, rows[sample], rows[chosen], temperature=0.07), torch.tensor(30 * 5 / 9).log())
    expected = by_noise(exponents(query, rows.double(), sample, chosen), partition, samples=9)
    torch.testing.assert_close(loss.double(), expected, rtol=1e-4, atol=1e-6)
    [ours], [theirs] = torch.autograd.grad(loss, query), torch.autograd.grad(expected, query)
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


def test_noise_is_as_likely_as_the_batchs_mean_of_exponentials() -> None:
    scores = torch.tensor([[3.0, 1.0], [0.0, 2.0]])
    mean = (math.exp(3) + math.exp(1) + math.exp(0) + math.exp(2)) / 4  # one negative: K = 1
    assert even_score(scores, scores.shape[1] - 1).item() == pytest.approx(math.log(mean))
    assert even_score(torch.tensor([[90.0, 90.0, 90.0]]), 2).item() == pytest.approx(90 + math.log(2))  # no overflow


def test_the_loss_is_the_papers_and_in_the_recipe_the_codes() -> None:
    assert (load("pirl").Hyper().loss, read(RECIPE).hyper.loss) == ("softmax", "nce")


@pytest.mark.parametrize("loss", ["softmax", "nce"])
def test_a_certain_mistake_stays_finite(loss: str) -> None:
    rows = torch.eye(3)
    query = torch.tensor([[0.0, 1.0, 0.0]], requires_grad=True)
    scores = bank_scores(query, rows[:1], rows[1:], temperature=0.01)
    if loss == "softmax":
        loss = softmax_nce(scores, torch.zeros(1, 2, dtype=torch.bool))
    else:
        loss = noise_nce(scores, even_score(scores, scores.shape[1] - 1))
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


def test_pieces_are_normalized_with_those_of_their_group_of_samples(setting) -> None:
    method, batch = setting("pirl")
    norms.convert(method, groups=2, run=4)
    image, puzzle = batch.views
    changed = puzzle._replace(value=torch.cat([puzzle.value[:4], torch.randn_like(puzzle.value[4:])]))
    one, two = (method._changed(batch._replace(views=(image, view))) for view in (puzzle, changed))
    torch.testing.assert_close(two[:4], one[:4])
    assert not torch.isclose(two[4:], one[4:]).all(1).any()

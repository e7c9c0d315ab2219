"""AVID: noise-contrastive estimation between two memories, as its paper and its authors' code have it."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from selfsup.method import load
from selfsup.spec import read

AVID = load("avid")


def estimated(right: Tensor, wrong: Tensor, average: Tensor) -> Tensor:
    """(N, D) dot products over τ, (N, K), () -> (): by probabilities, as sections 3.1 and the code have it."""
    noise = wrong.shape[1] * average
    is_data = right.exp() / (right.exp() + noise)
    is_noise = noise / (wrong.exp() + noise)
    return -(is_data.log() + is_noise.log().sum(1)).mean()


@pytest.mark.parametrize("targets", ["cross", "self", "joint"])
@pytest.mark.parametrize("even", [math.inf, 2.0])
def test_value_and_gradient_are_those_of_the_probabilities(setting, targets: str, even: float) -> None:
    """even: infinite before the first step, whose negatives say the normalizer."""
    method, batch = setting("avid", targets=targets, temperature=0.5)
    method.even.fill_(even)
    unit = [F.normalize(method.heads[v.modality](method.encoders[v.modality].pooled(v.value))) for v in batch.views]
    rows = [method.memories[view.modality].rows for view in batch.views]
    chosen = method._chosen(batch)
    assert (chosen[:, 0] == batch.sample).all()
    pairs = {"cross": [(0, 1), (1, 0)], "self": [(0, 0), (1, 1)], "joint": [(0, 1), (1, 0), (0, 0), (1, 1)]}[targets]
    scores = [(rows[b][chosen] @ unit[a][:, :, None]).squeeze(2) / 0.5 for a, b in pairs]
    average = scores[0][:, 1:].exp().mean().detach() if even == math.inf else torch.tensor(math.exp(even) / 5)
    losses = [estimated(score[:, 0], score[:, 1:], average) for score in scores]
    expected, out = sum(losses) / len(losses), method(batch)
    torch.testing.assert_close(out.loss, expected)
    weights = [weight for name, weight in method.named_parameters() if "heads" in name or "patch_embed" in name]
    for ours, theirs in zip(
        torch.autograd.grad(out.loss, weights), torch.autograd.grad(expected, weights), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_entries_move_by_half_and_the_normalizer_stays_that_of_the_first_step(setting) -> None:
    method, batch = setting("avid")
    before = {name: memory.rows.clone() for name, memory in method.memories.items()}
    out = method(batch)
    method.after_step(0.0, out.aux)
    for view in batch.views:
        new = method.joint(view.modality, view.value).detach()
        own, memory = before[view.modality], method.memories[view.modality].rows
        moved = F.normalize((own[batch.sample] + new) / 2, dim=1)
        torch.testing.assert_close(memory[batch.sample], moved)
        others = torch.ones(len(own), dtype=torch.bool).scatter(0, batch.sample, torch.zeros(8, dtype=torch.bool))
        assert torch.equal(memory[others], own[others])
    even = method.even.clone()
    assert even.isfinite()
    method.after_step(0.1, method(batch).aux)
    assert torch.equal(method.even, even)


def test_negatives_are_others_each_as_often(setting) -> None:
    method, batch = setting("avid", samples=32, negatives=3)
    chosen = torch.cat([method._chosen(batch._replace(draws=torch.rand(32, 1))) for _ in range(200)])
    assert (chosen[:, 1:] != chosen[:, :1]).all()
    assert all(len(set(row)) == 4 for row in chosen.tolist())
    mine = chosen[chosen[:, 0] == batch.sample[0], 1:].flatten()
    counts = torch.bincount(mine, minlength=len(method.memories["audio"].rows))
    assert counts.max() < len(mine) * 0.1


def test_the_recipe_is_that_of_the_authors() -> None:
    """configs/main/avid/audioset/Cross-N1024.yaml of AVID's code, and its heads."""
    spec = read("audioset_clips/avid")
    optim, hyper, video = spec.optim, spec.hyper, spec.input.video
    assert (optim.lr, optim.min_lr, optim.weight_decay, optim.decay_all) == (5e-4, 5e-4, 1e-5, True)
    assert (spec.train.batch, spec.train.duration.epochs) == (160, 40 * 5)
    assert (hyper.targets, hyper.negatives, hyper.momentum, hyper.temperature) == ("cross", 1024, 0.5, 0.07)
    assert (hyper.hidden, hyper.dim) == (512, 128)
    assert video.frames / video.rate == 0.5
    assert (spec.input.audio.rate, spec.input.audio.roll) == (24000, False)

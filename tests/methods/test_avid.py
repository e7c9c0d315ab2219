"""AVID: noise-contrastive estimation between two memories, as its paper and its authors' code have it."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from selfsup.errors import SpecError
from selfsup.method import TrainInfo, load
from selfsup.spec import read

AVID = load("avid")
STAGE2 = {"agreement": "both", "positives": 2, "negatives": 4, "within": 3, "samples": 8}


def estimated(right: Tensor, wrong: Tensor, average: Tensor) -> Tensor:
    """(N, R) dot products over τ, (N, K), () -> (): by probabilities, as sections 3.1 and the code have it."""
    noise = wrong.shape[1] * average
    is_data = right.exp() / (right.exp() + noise)
    is_noise = noise / (wrong.exp() + noise)
    return -(is_data.log().mean(1) + is_noise.log().sum(1)).mean()


def same_gradients(method, ours: Tensor, theirs: Tensor) -> None:
    weights = [weight for name, weight in method.named_parameters() if "heads" in name or "patch_embed" in name]
    for mine, other in zip(*(torch.autograd.grad(loss, weights) for loss in (ours, theirs)), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-6)


def rows_of(method, batch) -> tuple[list[Tensor], list[Tensor], Tensor]:
    """Return unit vectors and memories of sight and sound, and the entries that each sample is told from."""
    unit = [F.normalize(method.heads[v.modality](method.encoders[v.modality].pooled(v.value))) for v in batch.views]
    others = method._others(batch, method._alike(batch.sample))
    return unit, [method.memories[v.modality].rows for v in batch.views], others


@pytest.mark.parametrize("targets", ["cross", "self", "joint"])
@pytest.mark.parametrize("mean", [math.inf, 2.0])
@pytest.mark.parametrize("sight", ["image", "video"])
def test_value_and_gradient_are_those_of_the_probabilities(setting, targets: str, mean: float, sight: str) -> None:
    """mean: infinite before the first step, whose negatives say the normalizer."""
    method, batch = setting("avid", targets=targets, temperature=0.5, clips=sight == "video")
    assert [view.modality for view in batch.views] == [sight, "audio"]
    method.mean.fill_(mean)
    unit, rows, others = rows_of(method, batch)
    chosen = torch.cat([batch.sample[:, None], others], dim=1)
    pairs = {"cross": [(0, 1), (1, 0)], "self": [(0, 0), (1, 1)], "joint": [(0, 1), (1, 0), (0, 0), (1, 1)]}[targets]
    scores = [(rows[b][chosen] @ unit[a][:, :, None]).squeeze(2) / 0.5 for a, b in pairs]
    average = scores[0][:, 1:].exp().mean().detach() if mean == math.inf else torch.tensor(math.exp(mean))
    losses = [estimated(score[:, :1], score[:, 1:], average) for score in scores]
    expected, out = sum(losses) / len(losses), method(batch)
    torch.testing.assert_close(out.loss, expected)
    same_gradients(method, out.loss, expected)


AGREED = {"both": min, "either": max, "sight": lambda sight, _: sight, "sound": lambda _, sound: sound}


@pytest.mark.parametrize("agreement", AGREED)
def test_samples_that_agree_are_found_within_each_modality(setting, agreement: str) -> None:
    """criterions/avid_cma.py of the code at its weights, of which each is a half: sample by sample."""
    method, batch = setting("avid", **STAGE2 | {"agreement": agreement, "temperature": 0.5})
    method.mean.fill_(1.5)
    unit, rows, others = rows_of(method, batch)
    cross, within = [], []
    for place, own in enumerate(batch.sample.tolist()):
        cosines = [[float(memory[own] @ memory[other]) for memory in rows] for other in range(8)]
        agreed = [AGREED[agreement](*pair) for pair in cosines]
        alike = sorted({*range(8)} - {own}, key=lambda other, agreed=agreed: -agreed[other])[:2]
        wrong = others[place].tolist()
        assert len({own, *alike, *wrong}) == 1 + 2 + 4
        for one, other in ((0, 1), (1, 0)):
            vector, average = unit[one][place], torch.tensor(math.exp(1.5))
            right, rest = rows[other][[own]] @ vector / 0.5, rows[other][wrong] @ vector / 0.5
            cross.append(estimated(right[None], rest[None], average))
            right, rest = rows[one][alike] @ vector / 0.5, rows[one][wrong[:3]] @ vector / 0.5
            within.append(estimated(right[None], rest[None], average))
    expected, out = (sum(cross) / len(cross) + sum(within) / len(within)) / 2, method(batch)
    torch.testing.assert_close(out.loss, expected)
    same_gradients(method, out.loss, expected)


def test_the_second_stage_goes_on_with_the_memories_of_the_first(setting) -> None:
    (first, _), (second, batch) = setting("avid", seed=1), setting("avid", **STAGE2)
    second.load_state_dict(first.state_dict())
    assert second.mean.isinf()
    before = second._alike(batch.sample)
    rows = first.memories["image"].rows, first.memories["audio"].rows
    expected = torch.minimum(*(memory @ memory.T for memory in rows)).fill_diagonal_(-2).topk(2).indices[batch.sample]
    assert before.equal(expected)


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
    mean = method.mean.clone()
    assert mean.isfinite()
    method.after_step(0.1, method(batch).aux)
    assert torch.equal(method.mean, mean)


@pytest.mark.parametrize("positives", [None, 5])
def test_negatives_are_others_each_as_often(setting, positives: int | None) -> None:
    stage2 = {"agreement": "both", "positives": positives} if positives else {}
    method, batch = setting("avid", samples=32, negatives=3, **stage2)
    alike = method._alike(batch.sample)
    others = torch.cat([method._others(batch._replace(draws=torch.rand(32, 1)), alike) for _ in range(200)])
    assert all(len(set(row)) == 3 for row in others.tolist())
    mine = others[::32].flatten()
    counts = torch.bincount(mine, minlength=32)
    left_out = {batch.sample[0].item(), *alike[0].tolist()}
    assert {*counts.argwhere()[:, 0].tolist()} == {*range(32)} - left_out
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


def test_the_recipe_of_the_second_stage_is_that_of_the_authors() -> None:
    """configs/main/avid-cma/audioset/InstX-N1024-PosW-N64-Top32.yaml: all else as in the first stage."""
    first, spec = read("audioset_clips/avid"), read("audioset_clips/avid_cma")
    assert (getattr(spec.start, "from"), spec.start.weights) == ("audioset_clips/avid", "all")
    assert (spec.optim.lr, spec.optim.min_lr) == (1e-4, 1e-4)
    assert spec.optim.model_copy(update={"lr": 5e-4, "min_lr": 5e-4}) == first.optim
    hyper = spec.hyper
    assert (hyper.agreement, hyper.positives, hyper.within, hyper.negatives) == ("both", 32, 64, 1024)
    assert (spec.train, spec.input, spec.backbone) == (first.train, first.input, first.backbone)


def test_as_many_samples_as_agree_have_to_be_there() -> None:
    with pytest.raises(SpecError, match="no other"):
        raise next(AVID.check(AVID.Hyper(agreement="both", positives=7), None, TrainInfo(8, 2, 10, 2)))
    assert not list(AVID.check(AVID.Hyper(agreement="both", positives=6), None, TrainInfo(8, 2, 10, 2)))
    assert [error.paths for error in AVID.check(AVID.Hyper(within=8), None)] == [("hyper.within", "hyper.agreement")]

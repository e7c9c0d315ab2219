"""GDT: pairs of clips and sounds, each compared by hand, under both relations to both transformations of time."""

from itertools import product

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from selfsup.errors import SpecError
from selfsup.method import load
from selfsup.parts.contrastive import told_apart
from selfsup.parts.patch import patchify, pixels
from selfsup.spec import read
from selfsup.views import Beside

GDT = load("gdt")
RELATIONS = None, "distinctive", "invariant"


def embedded(method, view, is_reversed: int) -> Tensor:
    """Return the embedding of a view, whose frames come in the other order."""
    encoder, clips = method.encoders[view.modality], pixels(view.value, method.encoders[view.modality].patch)
    shown = torch.stack(clips.unbind(2)[::-1], dim=2) if is_reversed else clips
    return F.normalize(method.heads[view.modality](encoder.pooled(patchify(shown, encoder.patch))))


def by_hand(query: dict, key: dict, shift: str | None, reversal: str | None) -> Tensor:
    """Average over samples and transformations of both, pair by pair. query, key: (shift, reversal) -> (8, D)."""
    losses = []
    for sample, (time, order) in product(range(8), query):
        right, wrong = [], []
        for other, (its_time, its_order) in product(range(8), key):
            same = sample == other
            same &= time == its_time or shift == "invariant"
            same &= order == its_order or reversal == "invariant"
            cosine = query[time, order][sample] @ key[its_time, its_order][other].detach()
            (right if same else wrong).append((cosine / 0.07).exp())
        losses.append(-torch.stack([(own / (own + sum(wrong))).log() for own in right]).mean())
    return torch.stack(losses).mean()


@pytest.mark.parametrize(
    ("shift", "reversal"), [relations for relations in product(RELATIONS, RELATIONS) if any(relations)]
)
def test_value_and_gradient_are_those_of_pairs(setting, shift: str | None, reversal: str | None) -> None:
    method, batch = setting("gdt", shift=shift, reversal=reversal)
    half = len(batch.views) // 2
    assert [view.modality for view in batch.views] == ["video"] * half + ["audio"] * half
    orders = range(2 if reversal else 1)
    sight, sound = (
        {(time, order): embedded(method, view, order) for time, view in enumerate(views) for order in orders}
        for views in (batch.views[:half], batch.views[half:])
    )
    expected = (by_hand(sight, sound, shift, reversal) + by_hand(sound, sight, shift, reversal)) / 2
    out = method(batch)
    torch.testing.assert_close(out.loss, expected)
    weights = [weight for name, weight in method.named_parameters() if name.endswith("3.weight")]
    weights += [method.encoders["video"].trunk.patch_embed.proj.weight]
    assert len(weights) == 3
    for ours, theirs in zip(*(torch.autograd.grad(loss, weights) for loss in (out.loss, expected)), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_of_one_distinctive_transformation_it_is_the_codes_cross_entropy() -> None:
    """get_loss of gdt_helper.py: a clip's own sound among all, and all of the other kind, those of the clip, too."""
    clip, sound, other_clip, other_sound = F.normalize(torch.randn(4, 5, 8), dim=2)
    query, key = torch.stack([clip, other_clip], dim=1), torch.stack([sound, other_sound], dim=1)
    ours = told_apart(query, key, torch.eye(2, dtype=torch.bool), temperature=0.07)
    logits = [torch.cat([one @ sound.T, one @ other_sound.T], dim=1) / 0.07 for one in (clip, other_clip)]
    theirs = [F.cross_entropy(own, torch.arange(5) + 5 * number) for number, own in enumerate(logits)]
    torch.testing.assert_close(ours, sum(theirs) / 2)


def test_a_sound_is_of_its_own_clip_s_time() -> None:
    specs = GDT.views(GDT.Hyper()).specs
    assert specs[2:] == (Beside(field="audio", of=0), Beside(field="audio", of=1))
    assert specs[0] == specs[1]
    assert specs[0].of is specs[1].of is None
    assert len(GDT.views(GDT.Hyper(shift=None)).specs) == 2
    with pytest.raises(SpecError, match="nothing to compose"):
        raise next(GDT.check(GDT.Hyper(shift=None, reversal=None), None))


def test_the_recipe_is_that_of_the_authors() -> None:
    """scripts/pretrain_gdt_k400.sh and the defaults of main_gdt.py, on 16 GPUs of 8 videos."""
    spec = read("audioset_clips/gdt")
    optim, hyper, video = spec.optim, spec.hyper, spec.input.video
    assert (optim.name, optim.momentum, optim.weight_decay, optim.decay_all) == ("sgd", 0.9, 1e-5, True)
    assert (optim.lr, optim.min_lr, optim.warmup.epochs) == (0.16, 0.16, 10)
    assert (spec.train.batch, spec.train.duration.epochs) == (128, 201)
    assert (hyper.temperature, hyper.hidden, hyper.dim) == (0.07, 512, 256)
    assert (video.frames, video.rate, spec.backbone.image_size) == (30, 30, 112)
    assert spec.input.audio.rate == 24000

"""ImageBind: InfoNCE between images and each of the others."""

import sys

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from selfsup.errors import SpecError
from selfsup.method import load
from selfsup.sections import Backbone, Setup, Train
from selfsup.spec import read

BIND = load("imagebind")


def info_nce(query: Tensor, key: Tensor, scale: Tensor | float) -> Tensor:
    """Equation 1 of the paper, by exponentials."""
    similar = (scale * query @ key.T).exp()
    return -(similar.diagonal() / similar.sum(1)).log().mean()


def test_value_and_gradient_are_those_of_equation_1(setting) -> None:
    method, batch = setting("imagebind")
    assert [view.modality for view in batch.views] == ["image", "audio", "text"]
    unit = {
        v.modality: F.normalize(method.projections[v.modality](method.encoders[v.modality].pooled(v.value)))
        for v in batch.views
    }
    image, scale = unit["image"], {"audio": 20.0, "text": method.logits.log_scale.exp()}
    losses = [info_nce(*pair, scale[name]) for name in scale for pair in ((image, unit[name]), (unit[name], image))]
    expected, out = sum(losses) / 4, method(batch)
    torch.testing.assert_close(out.loss, expected)
    weights = [*method.projections.parameters(), method.logits.log_scale, method.encoders["text"].trunk.pos_embed]
    for ours, theirs in zip(
        torch.autograd.grad(out.loss, weights), torch.autograd.grad(expected, weights), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_no_pair_of_two_others_is_compared(setting) -> None:
    """The loss is a sum of one term for each: captions change that of text alone."""
    method, batch = setting("imagebind")
    text = batch.views[2]
    other = batch._replace(
        views=(*batch.views[:2], text._replace(value=text.value._replace(value=text.value.value.flip(0))))
    )
    before, after = method(batch).log, method(other).log
    assert torch.equal(before["audio_loss"], after["audio_loss"])
    assert not torch.equal(before["text_loss"], after["text_loss"])


def test_frozen_encoders_stay_and_their_projections_learn(setting) -> None:
    method, batch = setting("imagebind", frozen=("image", "text"))
    method(batch).loss.backward()
    moved = {name for name, weight in method.named_parameters() if weight.grad is not None}
    assert not any(name.startswith(("encoders.image", "encoders.text")) for name in moved)
    assert {"projections.image.weight", "projections.text.weight", "projections.audio.weight"} < moved
    assert any(name.startswith("encoders.audio") for name in moved)


def test_the_scale_of_text_is_bounded_after_a_step(setting) -> None:
    method, _ = setting("imagebind")
    with torch.no_grad():
        method.logits.log_scale.fill_(9.0)
    method.after_step(0.0, {})
    assert method.logits.scale.item() == pytest.approx(100.0, rel=1e-6)
    assert setting("imagebind", bound=("audio",))[0].logits is None


def test_an_encoder_that_is_not_there_cannot_be_frozen() -> None:
    setup = Setup(Backbone(), Train.model_construct(), 1, (224, 224))
    [error] = BIND.check(BIND.Hyper(bound=("audio",), frozen=("depth", "image")), setup)
    assert isinstance(error, SpecError)
    assert "there is no encoder of depth, but of audio, image" in str(error)


def test_the_recipe_sees_what_the_released_model_does() -> None:
    """imagebind_model.py: two frames, two seconds of 128 bins, a scale of 20, 1024 channels."""
    spec = read("audioset_clips/imagebind")
    assert (spec.input.video.frames, spec.input.video.rate, spec.input.video.tubelet) == (2, 1.0, 2)
    assert (spec.input.audio.bins, spec.input.audio.frames // 10, spec.input.audio.rate) == (128, 20, 16000)
    assert (spec.hyper.dim, sys.modules[BIND.__module__].SCALES["audio"]) == (1024, 20.0)

"""ImageBind: InfoNCE between images and each of the others."""

import sys

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from selfsup.errors import SpecError
from selfsup.method import TrainInfo, load
from selfsup.sections import Backbone, Setup, Train
from selfsup.spec import read

BIND = load("imagebind")


def info_nce(query: Tensor, key: Tensor, scale: Tensor | float) -> Tensor:
    """Equation 1 of the paper, by exponentials."""
    similar = (scale * query @ key.T).exp()
    return -(similar.diagonal() / similar.sum(1)).log().mean()


@pytest.mark.parametrize("sight", ["image", "video"])
def test_value_and_gradient_are_those_of_equation_1(setting, sight: str) -> None:
    method, batch = setting("imagebind", clips=sight == "video")
    assert [view.modality for view in batch.views] == [sight, "audio", "text"]
    unit = {
        v.modality: F.normalize(method.projections[v.modality](method.encoders[v.modality].pooled(v.value)))
        for v in batch.views
    }
    image, scale = unit[sight], {"audio": 20.0, "text": method.logits.log_scale.exp()}
    losses = [info_nce(*pair, scale[name]) for name in scale for pair in ((image, unit[name]), (unit[name], image))]
    expected, out = sum(losses) / 4, method(batch)
    torch.testing.assert_close(out.loss, expected)
    weights = [*method.projections.parameters(), method.logits.log_scale, method.encoders["text"].trunk.pos_embed]
    weights += [method.encoders[name].trunk.patch_embed.proj.weight for name in (sight, "audio")]
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


@pytest.mark.parametrize(
    ("changes", "begun"),
    [
        ([], set()),
        (["backbone.weights=timm"], {"video", "audio"}),  # whose towers are as the backbone
        (["towers.audio={name: vit_tiny_patch16_224, patch_size: 8, weights: timm}"], {"audio"}),
        (["start={from: impacts/imagebind}"], {"video"}),
        (["start={from: impacts/imagebind, weights: all}"], {"video", "audio", "text"}),
    ],
)
def test_an_encoder_without_weights_cannot_be_frozen(changes: list[str], begun: set[str]) -> None:
    run = read("impacts/imagebind", ["hyper.frozen=[text, video]", *changes]).runs[0]
    assert run.begun == begun
    info = TrainInfo(num_samples=8, num_classes=3, num_steps=10, steps_per_epoch=2)
    setup = Setup(run.backbone, run.train, 1, (12, 48, 48), (4,), "video", begun=run.begun)
    refused = " ".join(str(error) for error in BIND.check(run.hyper, setup, info))
    for name, remedy in (("text", "start: {weights: all}"), ("video", "backbone.weights or start")):
        message = f"the encoder of {name} would stay at random weights; give it trained ones by {remedy}, or train it"
        assert (message in refused) == (name not in begun)


def test_the_recipe_sees_what_the_released_model_does() -> None:
    """imagebind_model.py: two frames, two seconds of 128 bins, a scale of 20, 1024 channels."""
    spec = read("audioset_clips/imagebind")
    assert (spec.input.video.frames, spec.input.video.rate, spec.input.video.tubelet) == (2, 1.0, 2)
    assert (spec.input.audio.bins, spec.input.audio.frames // 10, spec.input.audio.rate) == (128, 20, 16000)
    assert (spec.hyper.dim, sys.modules[BIND.__module__].SCALES["audio"]) == (1024, 20.0)

"""MAViL, patch by patch: reconstruction and contrasts of stage 1, and the features that stage 2 predicts."""

import pytest
import torch
from loops.authors import copied, same_gradients
from loops.fused import MAVIL, mavil_loss, split, together
from precision import double_precision
from small import shake

from selfsup.errors import SpecError
from selfsup.frozen import Frozen
from selfsup.method import TrainInfo
from selfsup.sections import Backbone, Setup, Train
from selfsup.spec import read

SIZES = {"mask_ratio": 0.5, "audio_ratio": 0.9}


@pytest.mark.parametrize("sight", ["image", "video"])
def test_value_and_gradient_are_those_derived_patch_by_patch(setting, sight: str) -> None:
    method, batch = setting("mavil", samples=2, double=True, clips=sight == "video", **SIZES)
    shake(method)
    own = {name: path for name, path in MAVIL.items() if name != "image"} | {sight: f"encoders.{sight}"}
    parts = copied(method, own)
    with double_precision():
        ours, theirs = method(batch).loss, mavil_loss(parts, batch)
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=0)
    ours.backward()
    theirs.backward()
    same_gradients(method, parts, own)


def test_the_second_stage_predicts_what_the_first_makes_of_the_whole(setting) -> None:
    method, batch = setting("mavil", samples=2, double=True, target="features", **SIZES)
    shake(method)
    first = method.teacher.method
    shake(first.requires_grad_(True))
    first.requires_grad_(False)
    parts, earlier = copied(method, MAVIL), copied(first, MAVIL)

    def whole(number: int) -> dict[str, torch.Tensor]:
        values = split(batch, number)[0]
        made = together(earlier, values, {name: [*range(len(own))] for name, own in values.items()})
        return {name: features[1:] for name, features in made.items()}

    with double_precision():
        ours, theirs = method(batch).loss, mavil_loss(parts, batch, whole)
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=0)
    ours.backward()
    theirs.backward()
    same_gradients(method, parts, MAVIL)
    assert not any(name.startswith("teacher") for name in method.state_dict())


def test_contrasts_may_be_left_out_and_sight_and_sound_share_a_space(setting) -> None:
    method, batch = setting("mavil", inter_weight=0.0, intra_weight=0.0)
    out = method(batch)
    assert list(out.log) == ["image_error", "audio_error"]
    torch.testing.assert_close(out.loss, out.log["image_error"] + out.log["audio_error"])
    for view in batch.views:
        unit = method.joint(view.modality, view.value)
        assert unit.shape == (8, 48)
        torch.testing.assert_close(unit.norm(dim=1), torch.ones(8))


def test_it_goes_on_from_its_own_first_stage_with_the_same_patches(setting) -> None:
    method, _ = setting("mavil", target="features")
    other, _ = setting("simclr", "vit")
    backbone = Backbone(name="vit_tiny_patch16_224", image_size=16, patch_size=4)
    setup = Setup(backbone, Train(duration={"steps": 4}), 1, (16, 16))
    info = TrainInfo(num_samples=8, num_classes=3, num_steps=10, steps_per_epoch=2)
    own = info._replace(teacher=method.teacher)
    assert [*method.check(method.hyper, setup, own)] == []
    [error] = method.check(method.hyper, setup, info._replace(teacher=Frozen(other, 4)))
    assert "an earlier stage of MAViL, not of SimCLR" in str(error)
    method.teacher.method.encoders["audio"].grid = (4, 4)
    with pytest.raises(SpecError, match=r"the earlier stage's patches of audio are 4x4 of .* points, and these 8x8 of"):
        type(method)(method.hyper, dict(method.encoders.items()), own)


def test_the_second_stage_has_the_settings_of_the_first() -> None:
    """And both have those of section 4 of the paper and its appendix, as far as these are remembered: mavil.yaml."""
    first, second = read("audioset_clips/mavil"), read("audioset_clips/mavil_stage2")
    assert (second.hyper.target, second.teacher.source) == ("features", "audioset_clips/mavil")
    assert second.hyper.model_copy(update={"target": "pixels"}) == first.hyper
    assert (second.optim, second.train, second.backbone) == (first.optim, first.train, first.backbone)
    hyper, video = first.hyper, first.input.video
    assert (hyper.mask_ratio, hyper.audio_ratio, hyper.fusion_depth) == (0.8, 0.8, 2)
    assert (hyper.inter_weight, hyper.intra_weight) == (0.1, 0.01)
    assert (hyper.inter_temperature, hyper.intra_temperature) == (0.1, 1.0)
    assert (video.frames, video.rate, first.input.audio.frames) == (8, 2, 1024)
    assert (first.train.batch, first.train.duration.epochs) == (512, 20)

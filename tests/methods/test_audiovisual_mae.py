"""Audiovisual MAE, patch by patch; what either modality tells the decoder of the other."""

from pathlib import Path

import pytest
import torch
from loops.authors import copied, same_gradients
from loops.fused import AUDIOVISUAL, audiovisual_loss
from precision import double_precision
from small import BACKBONES, shake

from selfsup import encoder
from selfsup.batch import View
from selfsup.errors import SpecError
from selfsup.method import TrainInfo, load
from selfsup.sections import InputShape
from selfsup.spec import Spec, read

KIND = load("audiovisual_mae")


def test_value_and_gradient_are_those_derived_patch_by_patch(setting) -> None:
    method, batch = setting("audiovisual_mae", samples=2, double=True)
    shake(method)
    parts = copied(method, AUDIOVISUAL)
    with double_precision():
        ours, theirs = method(batch).loss, audiovisual_loss(parts, batch)
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=0)
    ours.backward()
    theirs.backward()
    same_gradients(method, parts, AUDIOVISUAL)


@pytest.mark.parametrize("depth", [0, 1])
def test_one_modality_tells_of_the_other_where_both_pass_blocks_together(setting, depth: int) -> None:
    method, batch = setting("audiovisual_mae", fusion_depth=depth)
    shake(method)
    sight, sound = batch.views
    plain = method(batch).log
    other = method(batch._replace(views=(sight, changed(sound, ~sound.mask.removed)))).log
    assert other["image_error"].equal(plain["image_error"]) == (depth == 0)
    unseen = method(batch._replace(views=(sight, changed(sound, sound.mask.removed)))).log
    assert unseen["image_error"].equal(plain["image_error"])
    assert not unseen["audio_error"].equal(plain["audio_error"])


def changed(view: View, where: torch.Tensor) -> View:
    tokens = view.value
    return view._replace(value=tokens._replace(value=tokens.value.where(~where[..., None], 3.0)))


def test_errors_are_weighed(setting) -> None:
    method, batch = setting("audiovisual_mae", audio_weight=0.25)
    out = method(batch)
    torch.testing.assert_close(out.loss, 0.75 * out.log["image_error"] + 0.25 * out.log["audio_error"])


def test_encoders_may_differ_in_width(setting) -> None:
    _, batch = setting("audiovisual_mae")
    narrow = BACKBONES["vit"].model_copy(update={"width": 24, "heads": 2})
    towers = {"image": encoder.build(BACKBONES["vit"]), "audio": encoder.build(narrow, shape=InputShape(1, (32, 32)))}
    small = KIND.Hyper(decoder_width=32, decoder_depth=1, decoder_heads=2, mask_ratio=0.75, audio_ratio=0.5)
    info = TrainInfo(num_samples=8, num_classes=3, num_steps=10, steps_per_epoch=2)
    assert KIND(small, towers, info)(batch).loss.isfinite()


def test_a_tower_that_leaves_out_no_patches_or_all_is_refused(tmp_path: Path) -> None:
    """0.99 leave two of 30 x 8 patches of a sound, and none of 15 x 4."""

    def settings(tower: str) -> Spec:
        (tmp_path / "x.yaml").write_text(f"extends: impacts/audiovisual_mae\ntowers: {{audio: {tower}}}\n")
        return read(tmp_path / "x.yaml", ["hyper.audio_ratio=0.99"])

    assert settings("{name: vit_tiny_patch16_224, patch_size: 4}").hyper.audio_ratio == 0.99
    with pytest.raises(SpecError, match="audiovisual_mae works on tokens, which resnet18 does not take"):
        settings("{name: resnet18}")
    with pytest.raises(SpecError, match=r"a mask ratio of 0\.99 keeps 0 of the 60 tokens"):
        settings("{name: vit_tiny_patch16_224, patch_size: 8}")


def test_the_recipe_is_the_authors_configuration() -> None:
    """configs/audioset/pretrain.py of scenic's av_mae."""
    spec = read("audioset_clips/audiovisual_mae")
    optim, hyper, video = spec.optim, spec.hyper, spec.input.video
    assert (hyper.mask_ratio, hyper.audio_ratio, hyper.audio_weight, hyper.norm_pix_loss) == (0.9, 0.7, 0.5, False)
    assert (hyper.fusion_depth, hyper.decoder_width, hyper.decoder_depth, hyper.decoder_heads) == (2, 512, 4, 8)
    assert (optim.lr, optim.lr_rule, optim.lr_batch, optim.betas, optim.weight_decay) == (
        3e-4,
        "linear",
        256,
        (0.9, 0.95),
        0.05,
    )
    assert (spec.train.batch, spec.train.duration.epochs, optim.warmup.epochs) == (512, 120, 4)
    assert (video.frames, video.tubelet, spec.input.audio.bins) == (16, 2, 128)

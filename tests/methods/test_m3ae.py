"""M3AE against its own words, sample by sample, with padding cut off; and what a caption's tokens may see."""

from pathlib import Path

import pytest
import torch
from loops.authors import copied, same_gradients
from loops.joint import PARTS, m3ae_loss, padded
from precision import double_precision
from small import shake, without

from selfsup.errors import SpecError
from selfsup.spec import read


@pytest.mark.parametrize("weight", [0.5, 2.0])
def test_value_and_gradient_are_those_of_samples_without_padding(setting, weight: float) -> None:
    method, batch = setting("m3ae", double=True, word_weight=weight)
    shake(method)
    parts = copied(method, PARTS)
    with double_precision():
        ours, theirs = method(padded(batch)).loss, m3ae_loss(parts, padded(batch), weight)
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=0)
    ours.backward()
    theirs.backward()
    same_gradients(method, parts, PARTS)


def test_neither_hidden_values_nor_padding_are_seen_and_the_others_are(setting) -> None:
    method, batch = setting("m3ae")
    batch = padded(batch)
    image, text = batch.views
    painted = method.reconstruct(batch)

    def changed(where: torch.Tensor) -> torch.Tensor:
        words = text.value._replace(value=torch.where(where[..., None], 7, text.value.value))
        return method.reconstruct(batch._replace(views=(image, text._replace(value=words))))

    assert changed(text.mask.removed | ~text.value.valid).equal(painted)
    assert (changed(~text.mask.removed) - painted).abs().max() > 1e-4
    pixels = image.value._replace(value=image.value.value.masked_fill(image.mask.removed[..., None], 9.0))
    other = batch._replace(views=(image._replace(value=pixels), text))
    assert method.reconstruct(other).equal(painted)
    assert method(other).log["words"].equal(method(batch).log["words"])


def test_samples_without_captions_tell_patches_alone(setting) -> None:
    method, batch = setting("m3ae", double=True)
    shake(method)
    batch = without(padded(batch), [0, 5])
    with double_precision():
        ours, theirs = method(batch), m3ae_loss(copied(method, PARTS), batch)
    torch.testing.assert_close(ours.loss, theirs, rtol=1e-9, atol=0)
    assert method(without(batch, range(8))).log["words"] == 0


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("input: {text: {length: 3}}", r"a share of 0\.75 hides all 3 tokens of a caption"),
        ("input: {text: {depth: 3}}", "m3ae reads text by its backbone, so depth changes nothing; leave it out"),
        ("backbone: {name: eva02_tiny_patch14_224}", "places tokens by row and column, which words do not have"),
        ("towers: {image: {}}", "m3ae has no encoder of image by itself"),
    ],
)
def test_what_a_spec_of_one_transformer_cannot_ask(tmp_path: Path, more: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        read(spec(tmp_path, "m3ae", more))


def spec(folder: Path, method: str, more: str) -> Path:
    path = folder / "mine.yaml"
    train = "{duration: {steps: 2}, batch: 8}"
    path.write_text(f"name: mine\nmethod: {method}\ndata: {{train: a, val: b}}\ntrain: {train}\n{more}\n")
    return path


def test_the_recipe_is_that_of_the_authors_readme() -> None:
    spec = read("yfcc15m/m3ae")
    hyper, optim = spec.hyper, spec.optim
    assert (hyper.mask_ratio, hyper.word_ratio, hyper.word_weight, hyper.norm_pix_loss) == (0.75, 0.75, 0.5, False)
    assert (hyper.decoder_width, hyper.decoder_depth, hyper.decoder_heads) == (512, 8, 16)
    assert (optim.lr, optim.lr_rule, optim.lr_batch, optim.betas, optim.weight_decay) == (
        1.5e-4,
        "linear",
        256,
        (0.9, 0.95),
        0.05,
    )
    assert (spec.train.batch, spec.train.duration.epochs, optim.warmup.epochs) == (4096, 100, 5)
    assert (spec.input.text.length, spec.backbone.image_size) == (64, 256)

"""Trained encoders as a user holds them: what goes in is prepared as the evaluations' images are."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from tiny import BACKBONE, STATS, write_encoder

from selfsup import PretrainedEncoder, load_encoder, modality
from selfsup.encoder import build, timm_kwargs
from selfsup.errors import CheckpointError, SpecError
from selfsup.modality import Boxes
from selfsup.pipelines.modalities.pixels.resample import resampled
from selfsup.pretrained import notes
from selfsup.saved import save_encoder
from selfsup.sections import Backbone

VIT = Backbone(**(BACKBONE | {"depth": 3}))
CNN = Backbone(name="resnet18", image_size=32, width=8)
PHOTOS = np.random.default_rng(0).integers(0, 256, (2, 41, 50, 3), dtype=np.uint8)  # odd sizes: fractional boxes


def tensor(photos: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(photos).permute(0, 3, 1, 2)


def png(photo: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(photo).save(file, "png")
    return file.getvalue()


@pytest.mark.parametrize("name", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [16, 64])
def test_a_cut_and_resized_tensor_is_pillows(name: str, size: int) -> None:
    """Smaller and larger; Pillow rounds twice, each time by half a level."""
    top, left, side = 2.5625, 7.0625, 35.875
    box = (left, top, left + side, top + side)
    method = Image.Resampling[name.upper()]
    theirs = [np.asarray(Image.fromarray(photo).resize((size, size), method, box=box)) for photo in PHOTOS]
    ours = resampled(tensor(PHOTOS) / 255, (top, left, side, side), size, name)  # type: ignore[arg-type]
    assert float((ours * 255 - tensor(np.stack(theirs))).abs().max()) < 1.6


@pytest.mark.parametrize("backbone", [VIT, CNN], ids=lambda each: each.name)
@pytest.mark.parametrize("crop", [0.875, 1.0])
def test_images_are_seen_as_evaluations_see_their_files(backbone: Backbone, crop: float, tmp_path: Path) -> None:
    """From the file's bytes, by the host; then scaled, normalized and encoded by hand."""
    path = write_encoder(backbone, tmp_path, crop)
    encoder, kind = load_encoder(path), modality.load("image")
    view = kind.whole((32, 32), crop, kind.Input())
    box: Boxes = kind.place(view, np.array([(41, 50)]), np.empty((1, 0)))
    loaded = np.stack([kind.load(png(photo), box, [view], STATS)[0] for photo in PHOTOS])
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (STATS.mean, STATS.std))
    normalized = (tensor(loaded) / 255 - mean) / std
    with torch.inference_mode():
        expected = encoder.encoder.trunk(normalized)  # timm's own way from images to features
        found = encoder(tensor(PHOTOS))
        torch.testing.assert_close(found, expected, atol=0.02 * float(expected.std()), rtol=0.02)
        torch.testing.assert_close(encoder(tensor(PHOTOS) / 255), found)
        wrong = encoder.encoder.trunk(tensor(loaded) / 255)
    assert not torch.allclose(wrong, expected, atol=0.1 * float(expected.std()), rtol=0.1)


def test_images_of_its_own_size_go_in_unchanged_where_nothing_is_cut(tmp_path: Path) -> None:
    encoder, images = load_encoder(write_encoder(CNN, tmp_path), crop=1), tensor(PHOTOS[:, :32, :32])
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (STATS.mean, STATS.std))
    torch.testing.assert_close(encoder.prepare(images), (images / 255 - mean) / std)


def test_sixteen_bits_are_those_in_use(tmp_path: Path) -> None:
    path = tmp_path / "encoder.safetensors"
    backbone, stats = CNN, STATS.model_copy(update={"depth": 16, "bits": 12})
    save_encoder(build(backbone), backbone, path, notes=notes("image", stats))
    encoder, images = load_encoder(path, crop=1), torch.randint(0, 4096, (2, 3, 32, 32)).to(torch.uint16)
    torch.testing.assert_close(encoder.prepare(images), encoder.prepare(images.float() / 4095))


def test_layers_of_a_vit_are_timms_normalized(tmp_path: Path) -> None:
    encoder = load_encoder(write_encoder(VIT, tmp_path))
    theirs = timm.create_model(**timm_kwargs(VIT)).eval()
    theirs.load_state_dict(encoder.encoder.trunk.state_dict())
    images = torch.rand(2, 3, 32, 32)
    with torch.inference_mode():
        seen = theirs.forward_intermediates(images, norm=True, return_prefix_tokens=True, intermediates_only=True)
        found = encoder.encoder.layers(encoder.view_of((images * 255).byte().permute(0, 2, 3, 1)), [1, 3])
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (STATS.mean, STATS.std))
        normalized = ((images * 255).byte() / 255 - mean) / std
        seen = theirs.forward_intermediates(normalized, norm=True, return_prefix_tokens=True, intermediates_only=True)
    assert list(found) == [1, 3]
    for number, feature in found.items():
        torch.testing.assert_close(feature, seen[number - 1][1][:, 0])


def test_layers_are_counted_from_either_end_and_the_last_is_the_feature(tmp_path: Path) -> None:
    images = torch.rand(2, 3, 40, 40)
    for backbone, layers in ((VIT, 3), (CNN, 5)):
        encoder = load_encoder(write_encoder(backbone, tmp_path))
        assert encoder.num_layers == layers
        found = encoder.layers(images, [-1, 1, layers])
        assert list(found) == [1, layers]
        torch.testing.assert_close(found[layers], encoder(images))
        with pytest.raises(SpecError, match=f"layer 9: expected 1 to {layers}, or -1"):
            encoder.layers(images, [1, 9])


def test_inner_and_last_layers_of_a_cnn_are_of_one_forward_pass(tmp_path: Path) -> None:
    """The mean over each resolution of timm's own features, by a count of the stem's calls."""
    encoder = load_encoder(write_encoder(CNN.model_copy(update={"width": 16}), tmp_path)).encoder
    images, calls = torch.rand(2, 3, 64, 64), list[int]()
    encoder.trunk.conv1.register_forward_hook(lambda *_: calls.append(1))  # type: ignore[operator, union-attr]
    with torch.inference_mode():
        found = encoder.layers(images, [1, 4, 5])
        assert len(calls) == 1
        maps = encoder.trunk.forward_intermediates(images, intermediates_only=True)  # type: ignore[operator, union-attr]
        expected = {1: maps[0].mean((2, 3)), 4: maps[3].mean((2, 3)), 5: encoder.pooled(images)}
    for number, feature in found.items():
        torch.testing.assert_close(feature, expected[number])


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(3, 32, 32), r"expected images \(B, 3, H, W\), not \(3, 32, 32\)"),
        (torch.zeros(2, 1, 32, 32), r"expected images \(B, 3, H, W\), not \(2, 1, 32, 32\)"),
        (torch.full((2, 3, 32, 32), 255.0), r"expected floats in \[0, 1\], not 255 to 255"),
        (torch.linspace(-2, 2, 3072).view(1, 3, 32, 32), "mean and deviation are applied here"),
    ],
)
def test_what_is_no_batch_of_images(images: torch.Tensor, message: str, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=message):
        load_encoder(write_encoder(CNN, tmp_path))(images)


def test_a_file_that_does_not_say_how_its_samples_are_prepared(tmp_path: Path) -> None:
    path = tmp_path / "encoder.safetensors"
    save_encoder(build(CNN), CNN, path)
    with pytest.raises(CheckpointError, match="does not say its mean and deviation"):
        load_encoder(path)
    save_encoder(build(CNN), CNN, path, notes={"modality": "image", "stats": json.dumps({"mean": [1]})})
    with pytest.raises(CheckpointError, match="its samples are none of this version"):
        load_encoder(path)


def test_it_is_frozen_until_it_is_trained(tmp_path: Path) -> None:
    encoder = load_encoder(write_encoder(VIT, tmp_path))
    assert isinstance(encoder, PretrainedEncoder)
    assert not any(module.training for module in encoder.modules())
    encoder(torch.rand(1, 3, 32, 32)).sum().backward()
    assert encoder.encoder.trunk.blocks[0].attn.qkv.weight.grad is not None

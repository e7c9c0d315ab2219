"""What every kind of data keeps of the interface, from files to tokens, and what it has of it alone."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from arrays import npy
from tiny import BACKBONE
from videos import coded, numbered

from selfsup import encoder, modality, registry
from selfsup.errors import SelfsupError
from selfsup.modality import DecodeError, names, ready
from selfsup.parts.tokens import Tokens
from selfsup.pipelines.data import shards, sounds
from selfsup.pipelines.data.annotated import AnnotatedSample, pack_annotated, png
from selfsup.pipelines.data.manifest import Manifest
from selfsup.pipelines.data.pack import pack
from selfsup.pipelines.data.reader import SampleReader
from selfsup.pipelines.modalities.pixels.coding import jpeg
from selfsup.sections import Backbone, InputShape
from selfsup.views import Crop, Views

NUMBER, SMALL = 4, Backbone(**BACKBONE)
VIEWS = Views((Crop(jitter=0.8, brightness=0.4, blur=0.5), Crop(of=0)))


def values(number: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(number).uniform(-0.5, 0.5, shape)


def image(number: int) -> bytes:
    return jpeg((255 * (values(number, 36, 48, 3) + 0.5)).astype(np.uint8), quality=95)


def cloud(number: int) -> bytes:
    return npy(values(number, 90, 3))


FILES: dict[str, tuple[str, Callable[[int], bytes]]] = {  # suffix, and the file of a number
    "image": ("jpg", image),
    "audio": ("wav", lambda number: sounds.wav(values(number, 8000))),
    "depth": ("depth.png", lambda number: png((1500 + 1000 * values(number, 36, 48)).astype(np.uint16))),
    "points": ("points.npy", cloud),
    "right": ("right.jpg", image),
    "series": ("npy", lambda number: npy(values(number, 60, 2))),
    "tags": ("tags.json", lambda number: b"[%d, 7]" % number),
    "text": ("txt", lambda number: b"number %d" % number),
    "video": ("mp4", lambda number: coded([numbered(number + frame) for frame in range(12)])),
    "voxels": ("points.npy", cloud),
}


def packed(name: str, folder: Path) -> Manifest:
    """Return samples of a kind of data, from files as a user has them; of a companion beside images."""
    suffix, made = FILES[name]
    if name not in names():
        samples = ({"jpg": image(number), suffix: made(number)} for number in range(NUMBER))
        return pack_annotated([AnnotatedSample(str(n), own) for n, own in enumerate(samples)], folder / "out")
    (folder / "in").mkdir()
    for number in range(NUMBER):
        (folder / "in" / f"{number}.{suffix}").write_bytes(made(number))
    return pack(folder / "in", folder / "out").manifest


@pytest.mark.parametrize("name", registry.modules(modality.MODALITIES))
def test_a_kind_of_data_keeps_the_contract(name: str, tmp_path: Path) -> None:
    kind: Any = modality.load(name)
    for module in kind.requires:
        pytest.importorskip(module)
    data = packed(name, tmp_path)
    member, reading = modality.member_of(name), data.reading(name)
    assert member in (*data.fields, *data.beside, *data.annotations)
    assert shards.index(data.root).digest == data.digest
    assert shards.check(data.root) == []
    assert isinstance(reading, kind.Stats)
    samples = [bytes(sample.data) for sample in SampleReader(data, name).read(np.arange(NUMBER))]
    assert samples == [FILES[name][1](number) for number in range(NUMBER)], "files are packed as they are"
    assert kind.suffix(f"a.{FILES[name][0]}") == (None if kind.form_of else FILES[name][0])

    knobs = kind.Input(**kind.cheap)
    sizes, whole = kind.sizes(SMALL, knobs), kind.whole(kind.sizes(SMALL, knobs), 0.875, knobs)
    views = [*kind.views(VIEWS, sizes, knobs).specs, whole]
    assert whole.lengths == (knobs.points,) if kind.in_groups else sizes
    extents = np.array([kind.extent(sample, reading) for sample in samples])
    assert extents.shape == (NUMBER, len(kind.axes))
    assert (extents > 0).all()
    draws = np.random.default_rng(0).random((NUMBER, kind.place_draws))
    boxes = [kind.place(view, extents, draws if view is not whole else draws[:, :0]) for view in views]
    assert {box.shape for box in boxes} == {(NUMBER, 2 * len(kind.axes) + 1 + kind.pose)}
    both = np.stack(boxes, axis=1)
    loaded = [kind.load(sample, box, views, reading) for sample, box in zip(samples, both, strict=True)]
    raw = [np.stack(own) for own in zip(*loaded, strict=True)]
    assert [(own.shape[1:], own.dtype) for own in raw] == [kind.raw(view, reading) for view in views]
    out = [np.zeros_like(own) for own in raw]
    assert kind.fill([b"", *samples[1:]], both, views, reading, out) == [0], "damaged"
    assert all(np.array_equal(own[1:], filled[1:], equal_nan=True) for own, filled in zip(raw, out, strict=True))
    with pytest.raises(DecodeError):
        kind.load(b"", both[0], views, reading)

    for view, own in zip(views, raw, strict=True):
        if drawn := kind.change_draws(view):
            changed = kind.change(own[0], view, reading, np.full(drawn, 0.3))
            assert (changed.shape, changed.dtype) == (own[0].shape, own[0].dtype)
        draws = torch.rand(NUMBER, kind.augment_draws(view))
        seen = [kind.normalize(kind.augment(torch.from_numpy(own.copy()), view, draws), view, reading) for _ in "ab"]
        assert seen[0].shape == (NUMBER, reading.channels, *view.lengths)
        assert seen[0].isfinite().all()
        assert seen[0].equal(seen[1]), "of the same numbers the same"
        if not kind.is_companion:
            picture = kind.picture(seen[0].float(), reading)
            assert (picture.dtype, picture.shape[0], picture.shape[3]) == (np.uint8, NUMBER, 3)
        if name != "tags":  # which no encoder reads
            shape = InputShape(reading.channels, sizes, kind.leading(knobs), kind.in_groups)
            trunk = kind.tower(knobs) if kind.is_companion else encoder.build(SMALL, shape=shape)
            tokens = kind.seen(seen[0], None if kind.is_companion else trunk.patch)
            assert isinstance(tokens, Tokens)
            assert kind.is_companion or tokens.grid == trunk.grid
            assert trunk.pooled(tokens).shape == (NUMBER, 32)


def test_a_kind_of_data_whose_packages_are_missing_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    image = modality.load("image")
    assert ready("image") is image
    monkeypatch.setattr(type(image), "requires", ("json", "nowhere"))
    message = (
        r"^image needs nowhere, which is not installed: run `pip install 'selfsup\[image\]'` wherever selfsup runs$"
    )
    with pytest.raises(SelfsupError, match=message):
        ready("image")

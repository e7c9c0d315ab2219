"""The second view of a scene beside its first: how it is read, placed and normalized, and data that lacks it."""

from pathlib import Path

import numpy as np
import pytest
from outsiders import planned, spec_beside

from selfsup import modality
from selfsup.errors import SpecError
from selfsup.input_kinds import InputKinds, views_of
from selfsup.knob import Knobs
from selfsup.pipelines.data.annotated import AnnotatedSample, pack_annotated
from selfsup.pipelines.data.manifest import Manifest
from selfsup.pipelines.data.order import SampleOrder
from selfsup.pipelines.data.stream import SampleStream
from selfsup.pipelines.modalities.pixels.coding import jpeg
from selfsup.sections import Backbone
from selfsup.views import Beside, Crop, Views

SMALL = {"hyper": {"mask_ratio": 0.5, "decoder_width": 16, "decoder_depth": 1, "decoder_heads": 2}}


def gray(level: int) -> bytes:
    return jpeg(np.full((32, 48, 3), level, np.uint8), quality=95)


def packed(folder: Path, **others: int) -> Manifest:
    """Return eight gray images. others: by suffix, how much brighter what lies beside each is."""
    samples = (
        AnnotatedSample(str(n), {"jpg": gray(8 * n)} | {f"{name}.jpg": gray(8 * n + by) for name, by in others.items()})
        for n in range(8)
    )
    return pack_annotated(samples, folder)


def test_it_is_no_modality_of_samples_and_is_read_as_the_images_are(tmp_path: Path) -> None:
    data = packed(tmp_path, right=99)
    assert "right" not in (*modality.names(), *modality.companions())
    assert (list(data.fields), list(data.beside), data.annotations) == (["image"], [], ("right",))
    assert data.reading("right") is data.fields["image"]


@pytest.mark.parametrize("of", [None, 0])
def test_a_stream_delivers_it_placed_by_itself_or_as_the_first(tmp_path: Path, of: int | None) -> None:
    crop, kinds = Crop(scale=(0.2, 0.6)), InputKinds("image", Knobs(), {"right": Knobs()})
    asked = views_of(Views((crop, Beside(field="right", of=of, crop=crop))), kinds, Backbone(name="x", image_size=16))
    order = SampleOrder(samples=8, batch=8, seed=0, lanes=1, chunk=1, mix=1)
    [row] = SampleStream(packed(tmp_path, right=99), order, asked, 1).rows([0], 0, 1, threads=1, memory=2**24)
    brighter = row["view1"].astype(int) - row["view0"].astype(int)
    assert brighter.min() >= 97
    assert brighter.max() <= 101
    same = (row["box0"] == row["box1"]).all(1)
    assert same.all() if of == 0 else not same.any()


def test_data_without_it_is_refused_and_data_with_it_is_planned(tmp_path: Path) -> None:
    with_it, without = packed(tmp_path / "a", right=9), packed(tmp_path / "b", left=9)
    spec = spec_beside(tmp_path / "in" / "x.py", "", with_it.root, method="croco", **SMALL)
    run = planned(spec)
    assert run.size.beside["right"].sizes == run.size.sizes
    assert run.all_stats["right"] == run.all_stats["image"]
    spec = spec_beside(tmp_path / "in" / "x.py", "", without.root, method="croco", **SMALL)
    message = r"croco learns from right beside image, and no sample .* give each sample a \.right\.jpg"
    with pytest.raises(SpecError, match=message):
        planned(spec)

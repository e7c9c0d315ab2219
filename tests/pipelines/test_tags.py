"""Several labels of a sample, read from shards."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from outsiders import planned, spec_beside

from selfsup import modality
from selfsup.errors import DataError, SpecError
from selfsup.modality import DecodeError
from selfsup.pipelines.data.annotated import AnnotatedSample, pack_annotated
from selfsup.pipelines.data.stream import SampleStream
from selfsup.pipelines.modalities.pixels.coding import jpeg
from selfsup.pipelines.modalities.tags import TagList, TagsInput, tags
from selfsup.pipelines.stages.batches import Task
from selfsup.pipelines.stages.runner import perform
from selfsup.stage import read_json

KIND, BOX = modality.load("tags"), np.array([[0.0, 1.0, 0.0, 1.0]])
INPUT = {"tags": {"classes": 9, "most": 3}}


def tagged_shards(folder: Path) -> str:
    """Return images of which the number and the remainder are tags, in this order; those by four have none."""
    samples = []
    for n in range(32):
        own = {"tags.json": json.dumps([n % 9, n % 2] if n % 9 != n % 2 else [n % 9]).encode()} if n % 4 else {}
        image = jpeg(np.full((32, 32, 3), 7 * n, np.uint8), quality=95)
        samples.append(AnnotatedSample(f"{n:03d}", {"jpg": image, **own}))
    return pack_annotated(samples, folder).root


@pytest.mark.parametrize("data", [b"", b"[]", b"3", b'["a"]', b"[-1]", b"[true]", b"[1.0]", b"{}"])
def test_what_is_no_list_of_tags(data: bytes) -> None:
    with pytest.raises(DecodeError):
        tags(data)


def test_tags_are_padded_and_too_many_are_refused() -> None:
    [raw] = KIND.load(b"[4, 0, 4]", BOX, [TagList(knobs=TagsInput(**INPUT["tags"]))], KIND.Stats())
    assert raw[:, 0].tolist() == [4, 0, -1]
    tokens = KIND.seen(torch.from_numpy(raw[None]).movedim(-1, 1), None)
    assert (tokens.value[0, :, 0].tolist(), tokens.valid[0].tolist()) == ([4, 0, 0], [True, True, False])
    for data, message in ((b"[9]", "input.tags.classes"), (b"[1, 2, 3, 4]", "input.tags.most")):
        with pytest.raises(DataError, match=message):
            KIND.load(data, BOX, [TagList(knobs=TagsInput(**INPUT["tags"]))], KIND.Stats())


@pytest.mark.usefixtures("cluster")
def test_a_whole_run_learns_from_them(tmp_path: Path) -> None:
    data = tagged_shards(tmp_path / "data")
    sections: dict[str, Any] = {"method": "supervised", "input": INPUT, "hyper": {"tags": True}}
    spec = {"stream": {"lacking": "skip"}}
    run = planned(spec_beside(tmp_path / "in" / "none.py", "", data, **sections, **spec))
    views = Task(run.run, run.learned, run.order, run.size, Path(), {}, run.stats).views
    [row] = SampleStream(run.learned, run.order, views, 1).rows(range(8), 0, 1, threads=1, memory=2**24)
    for image, own in zip(row["view0"], row["view1"][..., 0].tolist(), strict=True):
        n = round(image.mean() / 7)
        assert own == [n % 9, n % 2, -1] if n % 9 != n % 2 else [n % 9, -1, -1]
    perform(run)
    assert read_json(run.pretrain.folder / "summary.json")["lacking_samples"] == 8.0
    with pytest.raises(SpecError, match=r"mixup: 0\.8 has no effect with tags"):
        planned(
            spec_beside(
                tmp_path / "in" / "none.py", "", data, **sections | {"hyper": {"tags": True, "mixup": 0.8}}, **spec
            )
        )

"""Versions of samples that evaluations read: which are made, what their stages are called, and how they are read."""

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from PIL import Image
from plans import Home

from selfsup import modality
from selfsup.errors import DataError
from selfsup.pipelines.data.annotated import AnnotatedSample, pack_annotated
from selfsup.pipelines.data.philox import CROP, uniform
from selfsup.pipelines.data.reader import SampleReader
from selfsup.pipelines.modalities.image import ImageReading
from selfsup.pipelines.modalities.pixels.coding import jpeg
from selfsup.pipelines.stages.evaluate import Load, features
from selfsup.pipelines.stages.versions.augmented import Augmented
from selfsup.pipelines.stages.versions.corrupted import Corrupted
from selfsup.pipelines.stages.versions.right import Right
from selfsup.pipelines.stages.view_table import ViewTable, chosen
from selfsup.pipelines.stages.views import LoadVersions
from selfsup.sealed import sealed
from selfsup.views import CROP_DRAWS, Center, Crop, boxes, flips

SIZE = 8


def test_views_are_random_crops_and_flips_that_depend_on_view_and_sample_alone(home: Home) -> None:
    run = home.run(method="simclr", backbone__image_size=SIZE)
    train, samples, crop = run.train, np.array([1, 4, 9]), Crop(size=SIZE)
    load = LoadVersions(Augmented(run.run, train, Center(size=SIZE)), samples)
    together = load({"id": np.arange(6)})
    assert together["id"].tolist() == [1, 4, 9, 1, 4, 9]
    assert together["view"].tolist() == [0, 0, 0, 1, 1, 1]
    alone = [load({"id": np.array([number])}) for number in reversed(range(6))]
    for name, column in together.items():
        np.testing.assert_array_equal(column, np.concatenate([part[name] for part in reversed(alone)]))
    kind, reading = modality.load("image"), train.fields["image"]
    for number, sample in enumerate(SampleReader(train, "image").read(np.tile(samples, 2))):
        draws = uniform(
            seed=0, epoch=np.array([number // 3]), index=samples[[number % 3]], purpose=CROP, draws=CROP_DRAWS
        )
        height, width = (np.array([size]) for size in kind.extent(sample.data, reading))
        box = np.concatenate([boxes(crop, height, width, draws), flips(crop, draws)[:, None]], 1)
        [expected] = kind.load(sample.data, box, [crop], reading)
        np.testing.assert_array_equal(together["sample"][number], expected)
    assert len({part.tobytes() for part in together["sample"]}) == 6


def test_corrupted_versions_are_of_what_evaluations_see(home: Home) -> None:
    """Version 71 is of JPEG's second quality, 18: the image is compared with Pillow's own bytes."""
    run = home.run()
    assert run.val is not None
    whole = Center(size=32, share=0.875)
    load = LoadVersions(Corrupted(run.run, run.val, whole), np.arange(4))
    found = load({"id": np.array([71 * 4 + 2])})
    assert (found["id"].tolist(), found["view"].tolist(), found["sample"].shape) == ([2], [71], (1, 32, 32, 3))
    seen = Load(run.train, run.val, whole)({"id": np.array([run.train.num_samples + 2])})["sample"][0]
    Image.fromarray(seen).save(file := io.BytesIO(), "JPEG", quality=18)
    np.testing.assert_array_equal(found["sample"][0], np.asarray(Image.open(file)))
    other = replace(run.val, fields={"image": ImageReading(channels=4), "audio": ImageReading()})
    assert Corrupted.unfit("audio", other) == "it corrupts images, and the run is of audio"
    assert Corrupted.unfit("image", run.val) == ""
    assert Corrupted.unfit("image", other).endswith("not 4 channels of 8")
    assert "needs .right.jpg, a second view" in Right.unfit("image", run.val)


def test_a_second_view_is_seen_as_the_first(tmp_path: Path, home: Home) -> None:
    left, right = (np.random.default_rng(seed).integers(0, 256, (20, 30, 3)).astype(np.uint8) for seed in (0, 1))
    members = {"jpg": jpeg(left, quality=90), "right.jpg": jpeg(right, quality=90)}
    split = pack_annotated([AnnotatedSample("0", members)], tmp_path / "pairs")
    assert split.annotations == ("right",)
    assert Right.unfit("image", split) == ""
    whole = Center(size=16, share=1.0, squashed=True)
    [seen] = LoadVersions(Right(home.run().run, split, whole), np.arange(1))({"id": np.array([0])})["sample"]
    (tmp_path / "alone").mkdir()
    alone = pack_annotated([AnnotatedSample("0", {"jpg": members["right.jpg"]})], tmp_path / "alone")
    np.testing.assert_array_equal(seen, Load(alone, alone, whole)({"id": np.array([0])})["sample"][0])


def test_views_are_embedded_once_for_all_that_read_the_same_and_beside_other_features(home: Home) -> None:
    plain = home.run(evals={"linear": {}})
    views = {"linear": {"views": 3}, "more": {"use": "linear_mae", "views": 3}, "invariance": {}}
    run = home.run(evals=views)
    assert run.embeds["linear"].key == plain.embeds["linear"].key
    assert run.embeds["invariance"] is run.embeds["linear"]
    assert run.probes["linear"].key != plain.probes["linear"].key
    assert run.views["linear"] is run.views["more"]
    assert run.views["invariance"].key != run.views["linear"].key
    spaces = [stage.space for stage in run.stages if stage.kind in ("embed", "views")]
    assert spaces == ["embed", "views/invariance", "views/linear"]
    assert run.probes["linear"].after == (run.embeds["linear"], run.views["linear"])
    assert not plain.views
    tokens = home.run(evals={"attentive": {"views": 2}, "attentive_vjepa": {"views": 2}})
    assert tokens.views["attentive"] is tokens.views["attentive_vjepa"]
    assert tokens.feature(tokens.evals["attentive"]).identity == {"reads": "tokens", "views": 2, "images": None}
    pixels = home.plan(evals=views, baselines=True)[0]
    assert pixels.method == "pixels"
    assert pixels.views.keys() == views.keys()


def test_a_share_of_the_samples_is_drawn_alike_and_sorted() -> None:
    some = chosen(1000, 50)
    assert some.tolist() == sorted(set(some.tolist())) == chosen(1000, 50).tolist()
    assert len(some) == 50
    assert some.max() < 1000
    assert chosen(7, None).tolist() == chosen(7, 9).tolist() == list(range(7))


def written(folder: Path, columns: dict[str, NDArray[Any]], value: NDArray[np.float32]) -> Path:
    column = pa.FixedSizeListArray.from_arrays(pa.array(value.ravel()), value.shape[1])
    table = pa.table({name: pa.array(cells) for name, cells in columns.items()} | {"feature": column})
    folder.mkdir(exist_ok=True)
    with sealed(folder / "features") as part:
        pq.write_table(table, part / "a.parquet")
    return folder


def test_views_are_read_beside_their_samples_and_a_missing_one_is_the_sample_itself(tmp_path: Path) -> None:
    """Samples 0 to 5, of which 2 has no label and 4 cannot be decoded, then one of val; views of 0, 2, 3 and 5."""
    ids, label, split = np.array([0, 1, 2, 3, 5, 6]), np.array([0, 1, -1, 0, 1, 1]), np.array([0, 0, 0, 0, 0, 1])
    own = 100 + np.arange(12, dtype=np.float32).reshape(6, 2)
    center = written(tmp_path / "center", {"id": ids, "label": label, "split": split}, own)
    shuffled = {"id": np.array([5, 3, 0, 3, 2, 0]), "view": np.array([1, 0, 1, 1, 0, 0])}
    value = np.arange(12, dtype=np.float32).reshape(6, 2)
    table = ViewTable(written(tmp_path / "views", shuffled, value), 2, np.array([0, 2, 3, 5]))
    found = features(center, 2, views=table).views
    assert found is not None
    assert isinstance(found, np.memmap)
    np.testing.assert_array_equal(found, [[value[5], value[1], own[4]], [value[2], value[3], value[0]]])
    every = features(center, 2, labelled=False, views=table)
    assert every.views is not None
    assert every.views.shape == (2, 4, 2)
    assert features(center, 2).views is None
    assert features(center, 2).handicap.tolist() == [0, 0]
    assert features(center, 2, narrow=True).handicap.tolist() == [-np.inf, 0], "the one sample of val is of class 1"


def test_tokens_of_versions_of_validation_samples_are_read_beside_these(tmp_path: Path) -> None:
    """Samples 0 and 1 of train, then 0 to 2 of val, of which 1 has no label; two tokens of one channel a sample."""
    ids, label, split = np.arange(5), np.array([0, 1, 0, -1, 1]), np.array([0, 0, 1, 1, 1])
    tokens = {"tokens": np.full(5, 2)}
    own = np.arange(10, dtype=np.float32).reshape(5, 2)
    center = written(tmp_path / "center", {"id": ids, "label": label, "split": split} | tokens, own)
    value = 100 + np.arange(6, dtype=np.float32).reshape(3, 2)
    shuffled = {"id": np.array([2, 0, 1]), "view": np.zeros(3, np.int64), "tokens": np.full(3, 2)}
    table = ViewTable(written(tmp_path / "views", shuffled, value), 1, np.arange(3), first=2)
    found = features(center, 2, views=table)
    assert found.views is not None
    np.testing.assert_array_equal(found.val[..., 0], own[[2, 4]])
    np.testing.assert_array_equal(found.views[..., 0], [[value[1], value[0]]])


def test_a_damaged_table_of_views_is_told(tmp_path: Path) -> None:
    folder = written(tmp_path, {"id": np.array([0]), "view": np.array([0])}, np.zeros((1, 2), np.float32))
    (folder / "features" / "a.parquet").write_bytes(b"")
    table = ViewTable(folder, 1, np.array([0]))
    with pytest.raises(DataError, match=r"a\.parquet is not as it was written; remove .* run the spec again"):
        table.read(np.array([0]), np.zeros((1, 2), np.float32))

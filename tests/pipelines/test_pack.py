import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from selfsup.errors import DataError
from selfsup.pipelines.data import shards
from selfsup.pipelines.data.folders import find
from selfsup.pipelines.data.manifest import load
from selfsup.pipelines.data.pack import pack
from selfsup.pipelines.data.reader import SampleReader


def save(path: Path, *, width: int = 40, height: int = 30, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (height // 4, width // 4), dtype=np.uint8)
    gray = Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)
    gray.convert("RGB").save(path, quality=90)
    return path


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Seven JPEGs of two classes."""
    for number in range(7):
        save(tmp_path / "images" / ("cat" if number < 4 else "dog") / f"{number}.jpg", seed=number)
    return tmp_path / "images"


def shards_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.tar"))}


def sizes(folder: Path) -> list[tuple[int, int]]:
    told = load(str(folder))
    samples = SampleReader(told, "image").read(np.arange(told.num_samples))
    return [Image.open(io.BytesIO(sample.data)).size for sample in samples]


def test_a_folder_a_class(images: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    packed = pack(images, tmp_path / "out", shard_size=3, progress=lambda done, total: seen.append((done, total)))
    assert packed.skipped == {}
    assert packed.manifest.classes == ("cat", "dog")
    assert packed.manifest.shards["samples"].to_pylist() == [3, 3, 1]
    assert seen == [(3, 7), (6, 7), (7, 7)]
    found = SampleReader(packed.manifest, "image").read(np.arange(7))
    assert [(sample.key, sample.label) for sample in found] == [
        (f"{'cat' if n < 4 else 'dog'}/{n}", int(n >= 4)) for n in range(7)
    ]
    originals = [path.read_bytes() for path in sorted(images.rglob("*.jpg"))]
    assert [sample.data for sample in found] == originals
    assert shards.check(str(tmp_path / "out")) == []


WEBDATASET = """
import hashlib, json, sys, webdataset
samples = webdataset.WebDataset(sys.argv[1:], shardshuffle=False, empty_check=False)
print(json.dumps([[s["__key__"], hashlib.sha256(s["jpg"]).hexdigest(), int(s["cls"])] for s in samples]))
"""


def test_webdataset_reads_what_it_writes(images: Path, tmp_path: Path) -> None:
    told = pack(images, tmp_path / "out", shard_size=3).manifest
    urls = [str(path) for path in sorted((tmp_path / "out").glob("*.tar"))]
    secure = os.environ | {"WDS_SECURE": "1"}
    theirs = subprocess.run([sys.executable, "-c", WEBDATASET, *urls], env=secure, capture_output=True, check=True)
    ours = [
        [s.key, hashlib.sha256(s.data).hexdigest(), s.label] for s in SampleReader(told, "image").read(np.arange(7))
    ]
    assert json.loads(theirs.stdout) == ours


def test_a_flat_folder_has_no_labels(tmp_path: Path) -> None:
    for name in ("b.jpg", "a.JPEG", "c.png", ".hidden.jpg"):
        save(tmp_path / "flat" / name)
    (tmp_path / "flat" / "notes.txt").write_text("no image")
    told = pack(tmp_path / "flat", tmp_path / "out").manifest
    found = SampleReader(told, "image").read(np.arange(3))
    assert [(sample.key, sample.label) for sample in found] == [("a", None), ("b", None), ("c", None)]
    assert told.classes == ()
    assert told.members == ("jpg",)
    with tarfile.open(tmp_path / "out" / "000000.tar") as tar:
        assert tar.getnames() == ["a.jpg", "b.jpg", "c.jpg"]


def packed(images: Path, out: Path) -> tuple[list[tuple[str, int | None]], dict[str, int]]:
    """Keys and labels, and what was left out."""
    made = pack(images, out)
    samples = SampleReader(made.manifest, "image").read(np.arange(made.manifest.num_samples))
    return [(sample.key, sample.label) for sample in samples], dict(made.left_out)


def test_images_of_every_format_are_packed(tmp_path: Path) -> None:
    """Every suffix that cameras and browsers write; of several frames the first."""
    suffixes = ["bmp", "tif", "TIFF", "gif", "jfif", "jpe", "JPG", "Webp", "ppm", "avif"]
    for place, suffix in enumerate(suffixes):
        image = Image.new("RGB", (16, 16), (25 * place, 25 * place, 25 * place))
        more = (
            {"save_all": True, "append_images": [Image.new("RGB", (16, 16), (255, 0, 0))]}
            if suffix in ("tif", "gif")
            else {}
        )
        path = tmp_path / "in" / "a" / f"{place}.{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        kind = {"jfif": "JPEG", "jpe": "JPEG", "jpg": "JPEG", "tif": "TIFF"}.get(suffix.lower(), suffix.upper())
        image.save(path, kind, **more)
    made = pack(tmp_path / "in", tmp_path / "out")
    assert (made.skipped, made.left_out) == ({}, {})
    for place, sample in enumerate(SampleReader(made.manifest, "image").read(np.arange(len(suffixes)))):
        assert sample.key == f"a/{place}"
        assert abs(np.asarray(Image.open(io.BytesIO(sample.data)).convert("RGB")).mean() - 25 * place) < 2


def test_what_is_no_image_is_counted_by_kind(images: Path, tmp_path: Path) -> None:
    for folder in ("cat/.ipynb_checkpoints", "dog/@eaDir", ".thumbs", "__MACOSX", "#recycle/deep"):
        save(images / folder / "0.jpg")
        save(images / folder / "1.jpg")
    for name in ("cat/._0.jpg", "cat/notes.txt", "dog/a.HEIC", "dog/b.heic", "LICENSE"):
        (images / name).write_bytes(b"")
    os.mkfifo(images / "cat" / "pipe.jpg")  # to read it would be to wait for ever
    (images / "dog" / "gone.jpg").symlink_to("/nowhere/x.jpg")
    found, left_out = packed(images, tmp_path / "out")
    assert found == [(f"{'cat' if n < 4 else 'dog'}/{n}", int(n >= 4)) for n in range(7)]
    assert left_out == {
        "files in .ipynb_checkpoints": 2,
        "files in @eaDir": 2,
        "files in .thumbs": 2,
        "files in __MACOSX": 2,
        "files in #recycle": 2,
        "hidden files": 1,
        ".txt files": 1,
        ".heic files": 2,
        "unnamed files": 1,
        "devices and pipes": 1,
        "links that lead nowhere": 1,
    }


def test_linked_folders_are_followed_once(images: Path, tmp_path: Path) -> None:
    """From elsewhere, as part of a class and as a class; not back to the images themselves, and not again."""
    save(tmp_path / "more" / "part" / "x.jpg")
    save(tmp_path / "cows" / "y.jpg")
    (tmp_path / "cows" / "loop").symlink_to(tmp_path / "cows")
    (images / "cat" / "part").symlink_to(tmp_path / "more" / "part")
    (images / "cow").symlink_to(tmp_path / "cows")
    (images / "dog" / "again").symlink_to(tmp_path / "more")
    (images / "cat" / "up").symlink_to("..")
    (images / "kitten").symlink_to("cat")
    (images / "dog" / "one.jpg").symlink_to(tmp_path / "cows" / "y.jpg")
    found, left_out = packed(images, tmp_path / "out")
    classes = {"cat": 0, "cow": 1, "dog": 2}
    assert {key for key, _ in found} >= {"cat/part/x", "cow/y", "dog/one"}
    assert len(found) == 10
    assert all(label == classes[key.partition("/")[0]] for key, label in found)
    assert left_out == {"linked folders whose image files are in it already": 4}


def test_no_image_behind_overlapping_links_is_lost_or_taken_twice(images: Path, tmp_path: Path) -> None:
    """A link into a folder, then one to that folder; a parent of the images; each other; one that only links show."""
    store = tmp_path / "store"
    for name in ("part/x.jpg", "y.jpg", "other/z.jpg"):
        save(store / "A" / name)
    save(tmp_path / "round" / "1" / "r.jpg")
    (tmp_path / "round" / "1" / "back").symlink_to(tmp_path / "round")
    save(images / ".blobs" / "b.jpg")
    (images / "ant").symlink_to(store / "A" / "part")
    (images / "bee").symlink_to(store / "A")
    (images / "bee2").symlink_to(store / "A")
    (images / "cow").symlink_to(tmp_path / "round" / "1")
    (images / "elk").symlink_to(".blobs")
    (images / "fox").symlink_to(images.parent)
    found, left_out = packed(images, tmp_path / "out")
    keys = [key for key, _ in found if key.partition("/")[0] not in ("cat", "dog")]
    assert keys == ["ant/x", "bee/other/z", "bee/y", "cow/r", "elk/b"]
    assert left_out["files in .blobs"] == 1
    twice = ("bee/part", "bee2", "cow/back/1", *BEHIND_FOX)
    assert left_out["linked folders whose image files are in it already"] == len(twice)


BEHIND_FOX = ("fox/images", "fox/round", "fox/store/A")  # the parent of the images has nothing that is not in already


def test_keys_have_no_dots_and_are_unique(tmp_path: Path) -> None:
    for name in ("x.y.jpg", "x_y.jpg", "x.y.png", "z/v1.0/p.jpg"):
        save(tmp_path / "set" / "k" / name)
    told = pack(tmp_path / "set", tmp_path / "out").manifest
    keys = [sample.key for sample in SampleReader(told, "image").read(np.arange(4))]
    assert keys == ["k/x_y", "k/x_y-2", "k/x_y-3", "k/z/v1.0/p"]
    assert shards.index(str(tmp_path / "out")).digest == told.digest


def test_an_empty_class_keeps_its_number(images: Path, tmp_path: Path) -> None:
    (images / "cow").mkdir()
    told = pack(images, tmp_path / "out").manifest
    assert told.classes == ("cat", "cow", "dog")
    assert [sample.label for sample in SampleReader(told, "image").read(np.array([0, 6]))] == [0, 2]
    assert shards.index(str(tmp_path / "out")).classes == told.classes


def test_resizing_is_of_the_shorter_side_and_never_enlarges(tmp_path: Path) -> None:
    save(tmp_path / "in" / "wide.jpg", width=200, height=100)
    save(tmp_path / "in" / "tall.png", width=90, height=301)
    small = save(tmp_path / "in" / "small.jpg", width=20, height=50)
    told = pack(tmp_path / "in", tmp_path / "out", resize=30).manifest
    assert sizes(tmp_path / "out") == [(20, 50), (30, 100), (60, 30)]
    assert SampleReader(told, "image").read(np.array([0]))[0].data == small.read_bytes()
    wide = np.asarray(Image.open(io.BytesIO(SampleReader(told, "image").read(np.array([2]))[0].data))).astype(int)
    expected = Image.open(tmp_path / "in" / "wide.jpg").resize((60, 30), Image.Resampling.BICUBIC)
    assert np.abs(wide - np.asarray(expected)).mean() < 6  # two codings as JPEG lie between


def test_quality_is_that_of_jpeg(tmp_path: Path) -> None:
    save(tmp_path / "in" / "a.png", width=200, height=200)
    for quality in (10, 95):
        pack(tmp_path / "in", tmp_path / f"{quality}", quality=quality)
    poor, good = ((tmp_path / name / "000000.tar").stat().st_size for name in ("10", "95"))
    assert poor < good


def test_the_same_images_give_the_same_bytes(images: Path, tmp_path: Path) -> None:
    shutil.copytree(images, tmp_path / "copy")
    for path in (tmp_path / "copy").rglob("*.jpg"):
        path.touch()
    once, twice = (pack(tmp_path / name, tmp_path / f"out-{name}", resize=20) for name in ("images", "copy"))
    assert once.manifest.digest == twice.manifest.digest
    assert shards_of(tmp_path / "out-images") == shards_of(tmp_path / "out-copy")


def test_it_goes_on_where_it_was_interrupted(images: Path, tmp_path: Path) -> None:
    def stop(done: int, _: int) -> None:
        if done > 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pack(images, tmp_path / "out", shard_size=3, progress=stop)
    assert not (tmp_path / "out" / "manifest.json").exists()
    first = tmp_path / "out" / "000000.tar"
    written = first.stat().st_ino, first.stat().st_mtime_ns
    pack(images, tmp_path / "out", shard_size=3)
    assert (first.stat().st_ino, first.stat().st_mtime_ns) == written
    pack(images, tmp_path / "whole", shard_size=3)
    assert shards_of(tmp_path / "out") == shards_of(tmp_path / "whole")
    assert not list((tmp_path / "out").glob("*.part"))


def test_only_what_changed_is_packed_again(images: Path, tmp_path: Path) -> None:
    pack(images, tmp_path / "out", shard_size=3)
    before = {path.name: path.stat().st_ino for path in (tmp_path / "out").glob("*.tar")}
    save(images / "dog" / "5.jpg", seed=99)
    cut = tmp_path / "out" / "000000.tar"
    cut.write_bytes(cut.read_bytes()[:3000])
    told = pack(images, tmp_path / "out", shard_size=3).manifest
    after = {path.name: path.stat().st_ino for path in (tmp_path / "out").glob("*.tar")}
    assert {name for name in after if after[name] != before[name]} == {"000000.tar", "000001.tar"}
    assert SampleReader(told, "image").read(np.array([5]))[0].data == (images / "dog" / "5.jpg").read_bytes()
    assert shards.check(str(tmp_path / "out")) == []


def test_shards_of_an_earlier_packing_go(images: Path, tmp_path: Path) -> None:
    pack(images, tmp_path / "out", shard_size=2)
    pack(images, tmp_path / "out", shard_size=5)
    assert list(shards_of(tmp_path / "out")) == ["000000.tar", "000001.tar"]
    assert shards.check(str(tmp_path / "out")) == []


def test_shards_of_others_are_not_overwritten(images: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with tarfile.open(tmp_path / "out" / "000000.tar", "w") as tar:
        tar.add(images / "cat" / "0.jpg", "0.jpg")
    before = shards_of(tmp_path / "out")
    with pytest.raises(DataError, match=r"000000\.tar: was not packed here"):
        pack(images, tmp_path / "out")
    assert shards_of(tmp_path / "out") == before


def test_images_that_cannot_be_decoded_are_left_out_and_named(images: Path, tmp_path: Path) -> None:
    cut, junk = images / "cat" / "1.jpg", images / "dog" / "6.jpg"
    cut.write_bytes(cut.read_bytes()[:-300])
    junk.write_bytes(b"junk")
    for _ in range(2):  # and again where the shards are kept
        packed = pack(images, tmp_path / "out", shard_size=3)
        assert list(packed.skipped) == [str(cut), str(junk)]
        assert [why.partition(":")[0] for why in packed.skipped.values()] == [
            "a truncated JPEG",
            "not an image in a known format (JPEG, PNG, WEBP, GIF, BMP, TIFF, PPM, AVIF)",
        ]
        assert packed.manifest.shards["samples"].to_pylist() == [2, 3]


def test_nothing_to_pack(tmp_path: Path) -> None:
    (tmp_path / "in" / "cat").mkdir(parents=True)
    with pytest.raises(DataError, match="no jpg/jpeg/png/webp image in it"):
        pack(tmp_path / "in", tmp_path / "out")
    (tmp_path / "in" / "cat" / "1.heic").write_bytes(b"")
    with pytest.raises(DataError, match=r"no jpg/jpeg/png/webp image in it \(but 1 \.heic file\)"):
        pack(tmp_path / "in", tmp_path / "out")
    (tmp_path / "in" / "cat" / "1.jpg").write_bytes(b"junk")
    with pytest.raises(
        DataError, match=r"not one of its 1 image files can be decoded; .*1\.jpg: not an image in a known"
    ):
        pack(tmp_path / "in", tmp_path / "out")
    with pytest.raises(DataError, match="not a folder"):
        pack(tmp_path / "nowhere", tmp_path / "out")


def test_a_mixed_folder_is_refused(images: Path, tmp_path: Path) -> None:
    save(images / "stray.jpg")
    with pytest.raises(DataError, match="both in it and in folders"):
        pack(images, tmp_path / "out")


def test_shards_do_not_go_among_the_images(images: Path) -> None:
    with pytest.raises(DataError, match="lies inside"):
        pack(images, images / "shards")
    assert not (images / "shards").exists()


def test_a_place_that_cannot_be_written(images: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"file/out: .*Not a directory"):
        pack(images, tmp_path / "file" / "out")


def test_a_split_is_of_each_class_and_the_same_on_any_machine(tmp_path: Path) -> None:
    for number in range(25):
        save(tmp_path / "images" / ("cat" if number < 20 else "dog") / f"{number}.jpg", seed=number)
    parts = find(tmp_path / "images").split(0.2)
    train, val = (pack(part, tmp_path / name) for part, name in zip(parts, ("train", "val"), strict=True))
    assert (train.classes, val.classes) == ({"cat": 16, "dog": 4}, {"cat": 4, "dog": 1})
    keys = [
        {sample.key for sample in SampleReader(load(str(tmp_path / name)), "image").read(np.arange(packed))}
        for name, packed in (("train", 20), ("val", 5))
    ]
    assert not keys[0] & keys[1]
    ranks = sorted(
        (f"dog/{n}" for n in range(20, 25)), key=lambda key: hashlib.blake2b(key.encode(), digest_size=8).digest()
    )
    assert ranks[0] in keys[1]
    with pytest.raises(DataError, match=r"25 image files cannot be split by a share of 0\.01"):
        find(tmp_path / "images").split(0.01)


def test_flat_takes_the_images_of_all_folders_without_labels(images: Path, tmp_path: Path) -> None:
    save(images / "stray.jpg")
    packed = pack(find(images, flat=True), tmp_path / "out")
    assert (packed.manifest.num_samples, packed.manifest.classes, packed.classes) == (8, (), {})


def test_classes_called_as_splits_are_told(images: Path) -> None:
    assert find(images).splits == []
    (images / "Train").mkdir()
    assert find(images).splits == ["Train"]


def test_kept_files_are_unchanged_unless_resized(tmp_path: Path) -> None:
    small, large = save(tmp_path / "in" / "small.png"), save(tmp_path / "in" / "large.webp", width=80, height=90)
    advice: list[str] = []
    pack(tmp_path / "in", tmp_path / "plain", remark=advice.append)
    assert advice == ["images below 64 pixels lose detail as JPEGs: --keep stores files as they are"]
    pack(tmp_path / "in", tmp_path / "out", keep=True, resize=40, remark=advice.append)
    with tarfile.open(tmp_path / "out" / "000000.tar") as tar:
        assert tar.getnames() == ["large.jpg", "small.png"]
        assert tar.extractfile("small.png").read() == small.read_bytes()  # type: ignore[union-attr]
    assert sizes(tmp_path / "out") == [(40, 45), (40, 30)]
    pack(tmp_path / "in", tmp_path / "whole", keep=True)
    assert len(advice) == 1
    with tarfile.open(tmp_path / "whole" / "000000.tar") as tar:
        assert tar.extractfile("large.webp").read() == large.read_bytes()  # type: ignore[union-attr]


def test_transparent_images_are_laid_on_a_color(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    pixels = np.zeros((16, 16, 4), np.uint8)
    pixels[:, 8:, 3] = 255  # black, the left half transparent
    Image.fromarray(pixels).save(tmp_path / "in" / "a.png")
    for color, left in (("white", 255), (None, 0)):
        pack(tmp_path / "in", tmp_path / str(color), keep=True, background=color)
        [sample] = SampleReader(load(str(tmp_path / str(color))), "image").read(np.arange(1))
        got = np.asarray(Image.open(io.BytesIO(sample.data)).convert("RGB"))
        assert (got[0, 0, 0], got[0, 15, 0]) == (left, 0)
    cut = save(tmp_path / "in" / "b.png").read_bytes()
    (tmp_path / "in" / "b.png").write_bytes(cut[: len(cut) // 2])
    packed = pack(tmp_path / "in", tmp_path / "cut", background="white")
    assert [Path(name).name for name in packed.skipped] == ["b.png"]


def test_a_folder_of_images_is_told_how_to_become_shards(images: Path) -> None:
    with pytest.raises(DataError, match=f"it is a folder of image files: run `selfsup shards pack {images} OUT`"):
        load(str(images))

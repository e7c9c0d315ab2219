import bz2
import gzip
import io
import json
import lzma
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from selfsup.errors import DataError
from selfsup.pipelines.data import manifest, shards
from selfsup.pipelines.data.reader import Sample, SampleReader

Member = tuple[str, bytes]


def png(gray: int, side: int = 8) -> bytes:
    sink = io.BytesIO()
    Image.new("RGB", (side, side), (gray, gray, gray)).save(sink, "PNG")
    return sink.getvalue()


def jpg(gray: int) -> bytes:
    sink = io.BytesIO()
    noise = np.random.default_rng(gray).integers(0, 256, (40, 30, 3), dtype=np.uint8)
    Image.fromarray(noise).save(sink, "JPEG")
    return sink.getvalue()


def tar(path: Path, members: list[Member], *, kind: int = tarfile.USTAR_FORMAT) -> Path:
    with tarfile.open(path, "w", format=kind) as file:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            if name.endswith("/"):
                info.type = tarfile.DIRTYPE
            file.addfile(info, io.BytesIO(data))
    return path


def everything(told: manifest.Manifest) -> list[Sample]:
    return SampleReader(told, "image").read(np.arange(told.num_samples))


def files(folder: Path, pattern: str = "*") -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob(pattern))}


def test_a_foreign_set_is_indexed_in_the_order_of_its_tars(tmp_path: Path) -> None:
    images = [jpg(n) for n in range(4)]
    first = [("b/2.JPG", images[0]), ("b/2.cls", b"5\n"), ("a.b/1.json", b'{"label": 3}'), ("a.b/1.jpeg", images[1])]
    tar(tmp_path / "x-1.tar", [("b/", b""), ("__notes__", b"hi"), *first, ("._2.jpg", b"resource fork")])
    tar(tmp_path / "x-0.tar", [("s.jpg", images[2]), ("s.txt", b" 0 "), ("t.png", png(9)), ("t.txt", b"a caption")])
    told = shards.index(str(tmp_path))
    assert [(s.key, s.data, s.label) for s in everything(told)] == [
        ("s", images[2], None),
        ("t", png(9), None),
        ("b/2", images[0], 5),
        ("a.b/1", images[1], 3),
    ]
    assert told.classes == ("0", "1", "2", "3", "4", "5")
    assert told.members == ("cls", "jpeg", "jpg", "json", "png", "txt")


@pytest.mark.parametrize("kind", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_long_and_foreign_names(tmp_path: Path, kind: int) -> None:
    key = "ü" * 30 + "/" + "n" * 120
    tar(tmp_path / "0.tar", [(f"{key}.png", png(1)), (f"{key}.cls", b"0")], kind=kind)
    (sample,) = everything(shards.index(str(tmp_path)))
    assert (sample.key, sample.data, sample.label) == (key, png(1), 0)


def test_labels_may_be_names(tmp_path: Path) -> None:
    tar(tmp_path / "0.tar", [("1.png", png(1)), ("1.cls", b"dog"), ("2.png", png(2)), ("2.json", b'{"cls": "cat"}')])
    told = shards.index(str(tmp_path))
    assert told.classes == ("cat", "dog")
    assert [sample.label for sample in everything(told)] == [1, 0]


def test_a_file_beside_the_shards_names_the_classes(tmp_path: Path) -> None:
    tar(tmp_path / "0.tar", [("1.png", png(1)), ("1.cls", b"1")])
    (tmp_path / "classnames.txt").write_text("tench\ngoldfish\nshark\n")
    assert shards.index(str(tmp_path)).classes == ("tench", "goldfish", "shark")
    (tmp_path / "classnames.txt").write_text("tench\n")
    with pytest.raises(DataError, match="label '1' is none of 1 classes"):
        shards.index(str(tmp_path))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("1.tar.gz", r"1\.tar\.gz: compressed, so .*decompress"),
        ("1.TGZ", r"1\.TGZ: compressed, "),
        ("1.tar.zst", r"1\.tar\.zst: compressed, "),
        (
            "more/1.tar",
            r"shards lie in more/(, too)? \(1\.tar \.\.\.\): (separate the two folders, then )?index each",
        ),
    ],
)
def test_shards_that_would_be_left_out_are_refused_by_name(tmp_path: Path, name: str, message: str) -> None:
    tar(tmp_path / "0.tar", [("1.png", png(1))])
    (tmp_path / name).parent.mkdir(exist_ok=True)
    shutil.copy(tmp_path / "0.tar", tmp_path / name)
    for _ in range(2):  # and so they are where there is no other shard
        with pytest.raises(DataError, match=message):
            shards.index(str(tmp_path))
        (tmp_path / "0.tar").unlink(missing_ok=True)


def test_a_suffix_in_capitals_is_one_and_other_files_and_folders_do_not_matter(tmp_path: Path) -> None:
    for number, name in enumerate(["0.tar", "1.TAR"]):
        tar(tmp_path / name, [(f"{number}.png", png(number))])
    (tmp_path / "notes.txt.gz").write_bytes(b"")
    (tmp_path / "logs").mkdir()
    told = shards.index(str(tmp_path))
    assert (told.num_samples, told.num_shards) == (2, 2)
    assert shards.check(str(tmp_path)) == []


@pytest.mark.parametrize(
    ("pack", "remedy"), [(gzip.compress, "gzip -d"), (bz2.compress, "bzip2 -d"), (lzma.compress, "xz -d")]
)
def test_a_compressed_shard_is_told_by_its_content(tmp_path: Path, pack: Callable[[bytes], bytes], remedy: str) -> None:
    path = tar(tmp_path / "0.tar", [("1.png", png(1))])
    path.write_bytes(pack(path.read_bytes()))
    with pytest.raises(DataError, match=rf"0\.tar: compressed, .*`{remedy}`"):
        shards.index(str(tmp_path))


def test_an_image_of_a_rarer_format_is_one_where_there_is_no_other(tmp_path: Path) -> None:
    sink = io.BytesIO()
    Image.new("RGB", (8, 8), (9, 9, 9)).save(sink, "BMP")
    tar(tmp_path / "0.tar", [("1.bmp", sink.getvalue()), ("2.png", png(2)), ("2.tif", b"depth")])
    assert [sample.data for sample in everything(shards.index(str(tmp_path)))] == [sink.getvalue(), png(2)]


def test_without_labels_there_are_no_classes(tmp_path: Path) -> None:
    tar(tmp_path / "0.tar", [("1.png", png(1)), ("2.png", png(2)), ("2.cls", b"-1")])
    told = shards.index(str(tmp_path))
    assert told.classes == ()
    assert [sample.label for sample in everything(told)] == [None, None]


def test_indexing_again_writes_the_same(tmp_path: Path) -> None:
    tar(tmp_path / "0.tar", [("1.png", png(1)), ("1.cls", b"1")])
    shards.index(str(tmp_path))
    before = files(tmp_path)
    assert {"manifest.json", "manifest-shards.parquet", "manifest-samples.npy", "0.tar"} == before.keys()
    shards.index(str(tmp_path))
    assert files(tmp_path) == before


def test_the_digest_is_of_the_content_wherever_it_lies(tmp_path: Path) -> None:
    for name, gray in (("a", 1), ("b", 1), ("c", 2)):
        (tmp_path / name).mkdir()
        tar(tmp_path / name / "0.tar", [("1.png", png(gray))])
    a, b, c = (shards.index(str(tmp_path / name)).digest for name in "abc")
    assert len(a) == 32
    assert a == b != c


def test_the_manifest_may_lie_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "shards").mkdir()
    tar(tmp_path / "shards" / "0.tar", [("1.png", png(1))])
    shards.index((tmp_path / "shards").as_uri(), out=str(tmp_path / "notes"))
    assert [path.name for path in (tmp_path / "shards").iterdir()] == ["0.tar"]
    assert everything(manifest.load(str(tmp_path / "notes")))[0].data == png(1)


def test_mean_and_deviation_are_of_channels_in_the_unit_interval(tmp_path: Path) -> None:
    members = [(f"{n}.png", png(255 * (n % 2), side=4 + n)) for n in range(10)]  # every image counts the same
    tar(tmp_path / "0.tar", members)
    told = shards.index(str(tmp_path))
    np.testing.assert_allclose(told.fields["image"].mean, [0.5] * 3)
    np.testing.assert_allclose(told.fields["image"].std, [0.5] * 3)


def test_a_tar_cut_anywhere_is_refused(tmp_path: Path) -> None:
    whole = tar(tmp_path / "0.tar", [(f"{n}.{kind}", b"x" * 700) for n in range(3) for kind in ("png", "cls")])
    data = whole.read_bytes()
    last = 6 * (512 + 1024)  # headers and padded data; after it, zeros
    assert not any(data[last:])
    for cut in [*range(0, last + 1024, 512), 100, 700, 5000, last + 1023]:
        whole.write_bytes(data[:cut])
        with pytest.raises(DataError, match=r"0\.tar: (truncated or damaged after byte|holds no)"):
            shards.index(str(tmp_path))


@pytest.mark.parametrize("header", [0, 1, 2])
@pytest.mark.parametrize("junk", [b"\0" * 512, b"\1" * 512])
def test_a_damaged_header_is_refused(tmp_path: Path, header: int, junk: bytes) -> None:
    path = tar(tmp_path / "0.tar", [(f"{n}.png", b"x" * 700) for n in range(3)])
    data = bytearray(path.read_bytes())
    data[header * 1536 : header * 1536 + 512] = junk
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"0\.tar: truncated or damaged after byte"):
        shards.index(str(tmp_path))


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([("1.png", png(1)), ("2.png", png(2)), ("1.cls", b"1")], "0.tar: 1: expected one image"),
        ([("1.png", png(1)), ("2.png", png(2)), ("1.png", png(1))], "0.tar: 1: the members of this key are not"),
        ([("1.png", png(1)), ("1.png", png(1))], r"0.tar: 1: two members .png"),
        ([("1.png", png(1)), ("1.jpg", png(1))], r"0.tar: 1: expected one image .*got members: png, jpg"),
        ([("1.cls", b"1")], r"0.tar: 1: expected one image .*got members: cls"),
        ([("1.png", b"no image")], "none of 1 samples tried can be decoded"),
        ([("readme/", b"")], "0.tar: holds no samples"),
    ],
)
def test_what_is_no_sound_shard_is_refused(tmp_path: Path, members: list[Member], message: str) -> None:
    tar(tmp_path / "0.tar", members)
    with pytest.raises(DataError, match=message):
        shards.index(str(tmp_path))


def test_a_folder_without_shards_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no \.tar file.*shards pack"):
        shards.index(str(tmp_path))
    with pytest.raises(DataError, match="not a folder that can be listed"):
        shards.index(str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match="not a path or URL"):
        shards.index("nothing://known/here")


def flipped(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 255
    path.write_bytes(data)


def test_check_finds_nothing_wrong_with_a_sound_set(checked: Path) -> None:
    seen: list[tuple[int, int]] = []
    assert shards.check(str(checked), progress=lambda done, total: seen.append((done, total))) == []
    assert seen == [(2, 4), (4, 4)]


@pytest.fixture
def checked(tmp_path: Path) -> Path:
    for shard in range(2):
        tar(tmp_path / f"{shard}.tar", [(f"{shard}{n}.jpg", jpg(n)) for n in range(2)])
    shards.index(str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    ("harm", "problems"),
    [
        (lambda path: path.unlink(), ["1.tar: missing"]),
        (
            lambda path: path.write_bytes(path.read_bytes()[:-512]),
            ["1.tar: 9728 bytes, not 10240: truncated or changed"],
        ),
        (lambda path: flipped(path, -1), ["1.tar: changed: its checksum is not that of"]),
        (lambda path: flipped(path, 512), ["1.tar: changed: its checksum is not that of", "1.tar: 10: not an image"]),
        (lambda path: shutil.copy(path, path.with_name("2.tar")), ["2.tar: not in the manifest"]),
    ],
)
def test_check_names_what_is_bad(checked: Path, harm: Callable[[Path], object], problems: list[str]) -> None:
    harm(checked / "1.tar")
    found = shards.check(str(checked))
    assert len(found) == len(problems)
    assert all(text.startswith(start) for text, start in zip(found, problems, strict=True)), found


def test_check_names_an_image_that_was_bad_from_the_start(tmp_path: Path) -> None:
    tar(tmp_path / "0.tar", [("good.jpg", jpg(1)), ("cut.jpg", jpg(2)[:-200]), ("fine.jpg", jpg(3))])
    shards.index(str(tmp_path))
    (problem,) = shards.check(str(tmp_path))
    assert problem.startswith("0.tar: cut: a truncated JPEG")


def test_the_head_is_readable_json(checked: Path) -> None:
    head = json.loads((checked / "manifest.json").read_text())
    assert (head["version"], head["num_samples"], head["num_shards"], head["root"]) == ("3", 4, 2, None)

"""Links in shards: GNU tar stores a second name of a file as one, and so do tools that deduplicate."""

import io
import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from selfsup.errors import DataError
from selfsup.pipelines.data import shards
from selfsup.pipelines.data.fetch import cached_reads
from selfsup.pipelines.data.manifest import Manifest
from selfsup.pipelines.data.reader import SampleReader


def png(gray: int) -> bytes:
    sink = io.BytesIO()
    Image.new("RGB", (8, 8), (gray, gray, gray)).save(sink, "PNG")
    return sink.getvalue()


def written(folder: Path, *members: tuple[str, bytes | str], kind: bytes = tarfile.LNKTYPE) -> Path:
    """A shard. Members: a name and its bytes, or its name and that of what it links to."""
    with tarfile.open(folder / "0.tar", "w", format=tarfile.GNU_FORMAT) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            if isinstance(data, str):
                info.type, info.linkname = kind, data
                tar.addfile(info)
            else:
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return folder


def held(told: Manifest) -> list[tuple[bytes, int | None]]:
    samples = SampleReader(told, "image").read(np.arange(told.num_samples))
    return sorted(((bytes(sample.data), sample.label) for sample in samples), key=str)


def test_labels_of_a_deduplicated_folder_are_not_lost(tmp_path: Path) -> None:
    """GNU tar itself: of files with one inode, all but the first are links."""
    source = tmp_path / "source"
    source.mkdir()
    for number in range(12):
        (source / f"{number:02d}.png").write_bytes(png(number))
        first = source / f"{number % 3:02d}.cls"
        if number < 3:
            first.write_text(f"{number}\n")
        else:
            os.link(first, source / f"{number:02d}.cls")
    os.link(source / "00.png", source / "12.png")
    (tmp_path / "set").mkdir()
    subprocess.run(["tar", "--sort=name", "-cf", tmp_path / "set" / "0.tar", "-C", source, "."], check=True)
    told = shards.index(str(tmp_path / "set"))
    expected = [(png(number), number % 3) for number in range(12)] + [(png(0), None)]
    assert held(told) == sorted(expected, key=str)
    assert shards.check(str(tmp_path / "set")) == []


@pytest.mark.parametrize("kind", [tarfile.LNKTYPE, tarfile.SYMTYPE])
def test_links_lead_on_in_either_order(tmp_path: Path, kind: bytes) -> None:
    """An image before and after what it links to, by a chain, and to a file that is no sample."""
    up = "" if kind == tarfile.LNKTYPE else "../"
    told = shards.index(
        str(
            written(
                tmp_path,
                ("a/1.png", f"{up}a/2.png"),
                ("a/1.cls", b"1"),
                ("a/2.png", f"{up}./b/3.png"),
                ("a/2.cls", f"{up}a/1.cls"),
                ("b/3.png", png(3)),
                ("b/3.cls", f"{up}a/2.cls"),
                ("store", png(4)),
                ("b/4.png", f"{up}store"),
                ("b/4.cls", b"0"),
                kind=kind,
            )
        )
    )
    assert held(told) == sorted([(png(3), 1)] * 3 + [(png(4), 0)], key=str)
    starts = told.rows.take(np.arange(4))["start"]
    assert (np.diff(starts) >= 0).all()  # as pieces of shards need it
    assert shards.check(str(tmp_path)) == []


@pytest.mark.parametrize(
    ("kind", "target"),
    [
        (tarfile.LNKTYPE, "b/1.cls"),
        (tarfile.SYMTYPE, "a/2.cls"),
        (tarfile.SYMTYPE, "/a/1.cls"),
        (tarfile.SYMTYPE, "../../a/1.cls"),
        (tarfile.SYMTYPE, "2.cls"),  # itself
        (tarfile.LNKTYPE, "a/3.cls"),  # a loop
    ],
)
def test_a_link_that_leads_nowhere_is_named(tmp_path: Path, kind: bytes, target: str) -> None:
    members = [("a/1.png", png(1)), ("a/1.cls", b"1"), ("a/2.png", png(2)), ("a/2.cls", target)]
    written(tmp_path, *members, ("a/3.png", png(3)), ("a/3.cls", "a/2.cls"), kind=kind)
    with pytest.raises(DataError, match=rf"0\.tar: a/2\.cls: a link to {target}, which is not in this shard; write it"):
        shards.index(str(tmp_path))


def test_links_to_folders_and_without_extension_are_no_part_of_samples(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "0.tar", "w") as tar:
        for name, kind, target in [
            ("v1.0", tarfile.DIRTYPE, ""),
            ("v.new", tarfile.SYMTYPE, "v1.0"),
            ("latest", tarfile.SYMTYPE, "gone"),
        ]:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, target
            tar.addfile(info)
        info = tarfile.TarInfo("v1.0/1.png")
        info.size = len(png(1))
        tar.addfile(info, io.BytesIO(png(1)))
    assert shards.index(str(tmp_path)).num_samples == 1


@pytest.mark.parametrize("kind", [tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_what_is_no_file_is_named(tmp_path: Path, kind: bytes) -> None:
    written(tmp_path, ("1.png", png(1)), ("1.cls", ""), kind=kind)
    with pytest.raises(DataError, match=r"0\.tar: 1\.cls: a sparse file or a device"):
        shards.index(str(tmp_path))


@pytest.mark.skipif(shutil.which("tar") is None, reason="no tar")
@pytest.mark.parametrize("form", ["gnu", "posix"])
def test_a_sparse_file_is_named(tmp_path: Path, form: str) -> None:
    """What lies in the shard are not the bytes of the image."""
    with (tmp_path / "1.png").open("wb") as file:
        file.write(png(1))
        file.truncate(2**20)
    subprocess.run(["tar", f"--format={form}", "-S", "-cf", "0.tar", "1.png"], cwd=tmp_path, check=True)
    with pytest.raises(DataError, match=r"1\.png: a sparse file or a device"):
        shards.index(str(tmp_path))


def test_names_that_are_no_utf8_stay_apart(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "0.tar", "w", format=tarfile.GNU_FORMAT, encoding="latin-1") as tar:
        for number, name in enumerate(["\u00e9.png", "\u00e8.png"]):
            info = tarfile.TarInfo(name)
            info.size = len(png(number))
            tar.addfile(info, io.BytesIO(png(number)))
    told = shards.index(str(tmp_path))
    assert [sample.key for sample in SampleReader(told, "image").read(np.arange(2))] == ["\\xe9", "\\xe8"]


def test_pieces_of_a_shard_with_links_hold_their_samples(tmp_path: Path) -> None:
    images = [(f"{number}.png", png(number)) for number in range(1, 6)]
    told = shards.index(str(written(tmp_path, ("0.png", "5.png"), *images, ("6.png", "2.png"))))
    index, counts = np.arange(7), told.shards["samples"].to_numpy()
    jobs = cached_reads(
        index, np.zeros(7, int), rows=told.rows.take, starts=told.starts, samples=counts, length=2, digest="d"
    )
    for job in jobs:
        rows = told.rows.take(index[job.places])
        assert job.piece is not None
        assert (rows["start"] >= job.piece.start).all()
        assert (rows["start"] + rows["length"] <= job.piece.stop).all()

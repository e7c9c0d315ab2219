import io
import json
import pickle
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from selfsup.errors import DataError
from selfsup.pipelines import shards
from selfsup.pipelines.fetch import Access
from selfsup.pipelines.manifest import Manifest, Reader, load

COUNTS = (3, 5, 1, 4)


def image(number: int) -> bytes:
    sink = io.BytesIO()
    Image.new("RGB", (5 + number, 9), (number, 0, 0)).save(sink, "PNG")
    return sink.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Shards of unequal size; sample n is image n, labelled n % 3, the fifth not at all."""
    made, number = tmp_path / "set", 0
    made.mkdir()
    for shard, count in enumerate(COUNTS):
        with tarfile.open(made / f"{shard}.tar", "w") as tar:
            for _ in range(count):
                members = {f"k{number}.png": image(number)}
                if number != 4:
                    members[f"k{number}.cls"] = str(number % 3).encode()
                for name, data in members.items():
                    info = tarfile.TarInfo(name)
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
                number += 1
    shards.index(str(made))
    return made


def test_what_it_tells(folder: Path) -> None:
    told = load(str(folder))
    assert (told.num_samples, told.num_shards, told.classes) == (13, 4, ("0", "1", "2"))
    assert told.starts.tolist() == [0, 3, 8, 9]
    assert told.shards["samples"].to_pylist() == list(COUNTS)
    assert told.shards["bytes"].to_pylist() == [(folder / f"{n}.tar").stat().st_size for n in range(4)]


def test_samples_come_in_the_order_asked_for(folder: Path) -> None:
    index = np.array([12, 0, 4, 8, 0, 7, 3, 9, 2, 4])
    found = Reader(load(str(folder))).read(index)
    expected = [(f"k{n}", image(n), None if n == 4 else n % 3) for n in index.tolist()]
    assert [tuple(sample) for sample in found] == expected
    assert Reader(load(str(folder))).read(np.array([], dtype=np.int64)) == []


def test_a_number_beyond_the_set_is_an_invariant(folder: Path) -> None:
    for number in (-1, 13):
        with pytest.raises(AssertionError):
            Reader(load(str(folder))).read(np.array([number]))


def test_only_the_shards_asked_for_are_touched(folder: Path) -> None:
    told = load(str(folder))
    for number in (0, 2, 3):
        (folder / f"{number}.tar").unlink()
    reader = Reader(told)
    assert [sample.key for sample in reader.read(np.array([3, 7]))] == ["k3", "k7"]
    with pytest.raises(DataError, match=r"2\.tar: missing; put it back, or run `selfsup shards index"):
        reader.read(np.array([8]))


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({}, [[0, 1], [3, 5, 7]]),
        ({"GAP": 100}, [[0], [1], [3], [5], [7]]),
        ({"RUN": 5000}, [[0, 1], [3, 5], [7]]),
    ],
)
def test_neighbours_are_read_in_one_go(
    folder: Path, monkeypatch: pytest.MonkeyPatch, limits: dict[str, int], expected: list[list[int]]
) -> None:
    for name, value in limits.items():
        monkeypatch.setattr(f"selfsup.pipelines.{'manifest' if name == 'GAP' else 'fetch'}.{name}", value)
    reader, index, jobs = Reader(load(str(folder))), [7, 3, 1, 0, 5], []
    fetch = reader.manifest.files.fetch
    monkeypatch.setattr(reader.manifest.files, "fetch", lambda job, rows: jobs.append(job) or fetch(job, rows))
    assert [sample.data for sample in reader.read(np.array(index))] == [image(number) for number in index]
    assert sorted([index[place] for place in job.places] for job in jobs) == expected


def test_rows_are_read_by_pages_and_few_are_held(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """13 samples on pages of 4: what is read is the seal, then the pages asked for, each of 4 x 16 bytes."""
    monkeypatch.setattr("selfsup.pipelines.rows.PAGE", 4)
    monkeypatch.setattr("selfsup.pipelines.rows.HELD", 2)
    rows, pages = load(str(folder)).rows, []
    read = rows._file.read
    object.__setattr__(rows._file, "read", lambda start, stop: pages.append((start, stop)) or read(start, stop))
    whole = np.load(folder / "manifest-samples.npy")  # numpy reads it, too
    for index in [[0, 3], [5], [1, 6], [12], [2]]:
        np.testing.assert_array_equal(rows.take(np.array(index)), whole[index])
    begin = (folder / "manifest-samples.npy").stat().st_size - 32 - 13 * 16
    assert pages == [(begin + 64 * page, begin + 16 * min(4 * page + 4, 13)) for page in [0, 1, 3, 0]]


@pytest.mark.parametrize("change", [lambda data: data[:-1024], lambda data: data + bytes(512)])
def test_a_shard_of_another_size_is_refused(folder: Path, change: Callable[[bytes], bytes]) -> None:
    told, path = load(str(folder)), folder / "1.tar"
    size = path.stat().st_size
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(DataError, match=rf"1\.tar: {path.stat().st_size} bytes, but {size} when it was indexed"):
        Reader(told).read(np.array([3]))


def test_a_shard_of_the_same_size_and_other_samples_is_refused(folder: Path) -> None:
    told, path = load(str(folder)), folder / "1.tar"
    data = path.read_bytes()
    path.write_bytes(bytes(512) + data[:-512])
    with pytest.raises(DataError, match=r"1\.tar: no image of \d+ bytes where one was: it is cut or changed"):
        Reader(told).read(np.array([3]))


def test_what_is_skipped_is_empty_and_named(folder: Path) -> None:
    told = replace(load(str(folder)), access=Access(missing="skip"))
    (folder / "0.tar").unlink()
    (folder / "1.tar").write_bytes(b"cut")
    found = Reader(told).read(np.array([2, 8, 5]))
    begin = told.rows.take(np.array([2, 5]))["start"]
    assert found == [(f"0.tar@{begin[0]}", b"", 2), ("k8", image(8), 2), (f"1.tar@{begin[1]}", b"", 2)]


def test_the_folder_may_be_moved(folder: Path) -> None:
    moved = folder.rename(folder.with_name("moved"))
    assert Reader(load(str(moved))).read(np.array([1]))[0].data == image(1)


def test_addresses(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    by_url = load(folder.as_uri())
    monkeypatch.chdir(folder.parent)
    relative = load("set/")
    monkeypatch.chdir("/")
    for told in (by_url, relative):
        assert Reader(told).read(np.array([11]))[0].data == image(11)


def test_pickled_it_is_its_address_and_digest(folder: Path) -> None:
    told = load(str(folder))
    sent = pickle.dumps(told)
    assert len(sent) < 500
    again: Manifest = pickle.loads(sent)
    assert again == told
    assert again.shards.equals(told.shards)


def test_what_a_process_has_open_is_shared_by_all_that_is_sent_to_it(folder: Path) -> None:
    sent = pickle.dumps(load(str(folder)))
    one, other = (pickle.loads(sent) for _ in range(2))
    assert one.rows is other.rows
    assert one.files is other.files


def test_a_pickled_manifest_is_refused_where_the_data_has_changed(folder: Path) -> None:
    sent = pickle.dumps(load(str(folder)))
    (folder / "3.tar").unlink()
    shards.index(str(folder))
    with pytest.raises(DataError, match="indexed anew while in use"):
        pickle.loads(sent)


def test_no_manifest(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"manifest\.json: missing; .*run `selfsup shards index"):
        load(str(tmp_path))


def test_files_of_two_manifests_are_not_mixed(folder: Path) -> None:
    old = folder.with_name("old")
    shutil.copytree(folder, old)
    (folder / "3.tar").unlink()
    shards.index(str(folder))
    shutil.copy(old / "manifest-samples.npy", folder)
    with pytest.raises(DataError, match=r"manifest-samples\.npy belongs to other shards"):
        Reader(load(str(folder)))
    shutil.copy(old / "manifest-shards.parquet", folder)
    with pytest.raises(DataError, match=r"manifest-shards\.parquet is not the one"):
        load(str(folder))


def test_labels_of_other_classes_are_not_taken(folder: Path) -> None:
    (folder / "classnames.txt").write_text("a\nb\nc\n")
    head = (folder / "manifest.json").read_text()
    shards.index(str(folder))
    (folder / "manifest.json").write_text(head)
    with pytest.raises(DataError, match=r"manifest-samples\.npy belongs to other shards"):
        Reader(load(str(folder)))


def test_another_version_is_refused(folder: Path) -> None:
    head = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(head | {"version": 1}))
    with pytest.raises(DataError, match="version 1, not 2: run `selfsup shards index"):
        load(str(folder))

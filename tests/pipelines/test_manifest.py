import io
import json
import pickle
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from selfsup.errors import DataError
from selfsup.pipelines.data import shards
from selfsup.pipelines.data.fetch import ReadOptions
from selfsup.pipelines.data.manifest import Manifest, digest, load
from selfsup.pipelines.data.manifest_writer import write_head, write_tables
from selfsup.pipelines.data.reader import SampleReader

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
    assert (told.num_samples, told.num_labelled, told.num_shards, told.classes) == (13, 12, 4, ("0", "1", "2"))
    assert told.starts.tolist() == [0, 3, 8, 9]
    assert told.shards["samples"].to_pylist() == list(COUNTS)
    assert told.shards["bytes"].to_pylist() == [(folder / f"{n}.tar").stat().st_size for n in range(4)]


def test_samples_come_in_the_order_asked_for(folder: Path) -> None:
    index = np.array([12, 0, 4, 8, 0, 7, 3, 9, 2, 4])
    found = SampleReader(load(str(folder)), "image").read(index)
    expected = [(f"k{n}", image(n), None if n == 4 else n % 3) for n in index.tolist()]
    assert [tuple(sample) for sample in found] == expected
    assert SampleReader(load(str(folder)), "image").read(np.array([], dtype=np.int64)) == []


def test_a_number_beyond_the_set_is_an_invariant(folder: Path) -> None:
    for number in (-1, 13):
        with pytest.raises(AssertionError):
            SampleReader(load(str(folder)), "image").read(np.array([number]))


def test_only_the_shards_asked_for_are_touched(folder: Path) -> None:
    told = load(str(folder))
    for number in (0, 2, 3):
        (folder / f"{number}.tar").unlink()
    reader = SampleReader(told, "image")
    assert [sample.key for sample in reader.read(np.array([3, 7]))] == ["k3", "k7"]
    with pytest.raises(DataError, match=r"2\.tar: missing; put it back, or run `selfsup shards index"):
        reader.read(np.array([8]))


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({}, [[0, 1], [3, 5, 7]]),
        ({"MAX_GAP": 100}, [[0], [1], [3], [5], [7]]),
        ({"MAX_READ": 5000}, [[0, 1], [3, 5], [7]]),
    ],
)
def test_neighbors_are_read_in_one_go(
    folder: Path, monkeypatch: pytest.MonkeyPatch, limits: dict[str, int], expected: list[list[int]]
) -> None:
    for name, value in limits.items():
        monkeypatch.setattr(f"selfsup.pipelines.data.{'reader' if name == 'MAX_GAP' else 'fetch'}.{name}", value)
    reader, index, jobs = SampleReader(load(str(folder)), "image"), [7, 3, 1, 0, 5], []
    fetch = reader.manifest.files.fetch
    monkeypatch.setattr(reader.manifest.files, "fetch", lambda job, rows: jobs.append(job) or fetch(job, rows))
    assert [sample.data for sample in reader.read(np.array(index))] == [image(number) for number in index]
    assert sorted([index[place] for place in job.places] for job in jobs) == expected


def test_rows_are_read_by_pages_and_few_are_held(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """13 samples on pages of 4: what is read is the checksums, then the pages asked for, each of 4 x 16 bytes."""
    monkeypatch.setattr("selfsup.pipelines.data.rows.PAGE", 4)
    monkeypatch.setattr("selfsup.pipelines.data.rows.MAX_PAGES", 2)
    shards.index(str(folder))
    rows, pages = load(str(folder)).rows, []
    read = rows._file.read
    object.__setattr__(rows._file, "read", lambda start, stop: pages.append((start, stop)) or read(start, stop))
    whole = np.load(folder / "manifest-samples.npy")  # numpy reads it, too
    for index in [[0, 3], [5], [1, 6], [12], [2]]:
        np.testing.assert_array_equal(rows.take(np.array(index)), whole[index])
    begin = (folder / "manifest-samples.npy").stat().st_size - 4 * 8 - 13 * 16
    assert pages == [(begin + 64 * page, begin + 16 * min(4 * page + 4, 13)) for page in [0, 1, 3, 0]]


@pytest.mark.parametrize("change", [lambda data: data[:-1024], lambda data: data + bytes(512)])
def test_a_shard_of_another_size_is_refused(folder: Path, change: Callable[[bytes], bytes]) -> None:
    told, path = load(str(folder)), folder / "1.tar"
    size = path.stat().st_size
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(DataError, match=rf"1\.tar: {path.stat().st_size} bytes, but {size} when it was indexed"):
        SampleReader(told, "image").read(np.array([3]))


def test_a_shard_of_the_same_size_and_other_samples_is_refused(folder: Path) -> None:
    told, path = load(str(folder)), folder / "1.tar"
    data = path.read_bytes()
    path.write_bytes(bytes(512) + data[:-512])
    with pytest.raises(DataError, match=r"1\.tar: no member of \d+ bytes where one was: truncated or changed"):
        SampleReader(told, "image").read(np.array([3]))


def test_what_is_skipped_is_empty_and_named(folder: Path) -> None:
    told = replace(load(str(folder)), read_options=ReadOptions(missing="skip"))
    (folder / "0.tar").unlink()
    (folder / "1.tar").write_bytes(b"cut")
    found = SampleReader(told, "image").read(np.array([2, 8, 5]))
    begin = told.rows.take(np.array([2, 5]))["start"]
    assert found == [(f"0.tar@{begin[0]}", b"", 2), ("k8", image(8), 2), (f"1.tar@{begin[1]}", b"", 2)]


def test_the_folder_may_be_moved(folder: Path) -> None:
    moved = folder.rename(folder.with_name("moved"))
    assert SampleReader(load(str(moved)), "image").read(np.array([1]))[0].data == image(1)


def test_addresses(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    by_url = load(folder.as_uri())
    monkeypatch.chdir(folder.parent)
    relative = load("set/")
    monkeypatch.chdir("/")
    for told in (by_url, relative):
        assert SampleReader(told, "image").read(np.array([11]))[0].data == image(11)


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


@pytest.mark.skipif(sys.platform != "linux", reason="counts threads as Linux shows them")
def test_it_is_loaded_without_threads_that_may_outlive_the_interpreter(folder: Path) -> None:
    """One of Arrow's that frees Python's bytes then aborts the process, after whatever it had to say."""
    lines = [
        "import os, sys",
        "from selfsup.pipelines.data.manifest import load",
        "before = set(os.listdir('/proc/self/task'))",
        "load(sys.argv[1])",
        "sys.exit(len(set(os.listdir('/proc/self/task')) - before))",
    ]
    assert subprocess.run([sys.executable, "-c", "\n".join(lines), str(folder)], check=False).returncode == 0


def test_no_manifest(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"manifest\.json: missing; .*run `selfsup shards index"):
        load(str(tmp_path))
    with pytest.raises(DataError, match=f"no such folder: .* make it by `selfsup shards pack SAMPLES {tmp_path}/none`"):
        load(str(tmp_path / "none"))


def test_files_of_two_manifests_are_not_mixed(folder: Path) -> None:
    old = folder.with_name("old")
    shutil.copytree(folder, old)
    (folder / "3.tar").unlink()
    shards.index(str(folder))
    shutil.copy(old / "manifest-samples.npy", folder)
    with pytest.raises(DataError, match=r"manifest-samples\.npy belongs to other shards"):
        SampleReader(load(str(folder)), "image")
    shutil.copy(old / "manifest-shards.parquet", folder)
    with pytest.raises(DataError, match=r"manifest-shards\.parquet is not the one"):
        load(str(folder))


def test_labels_of_other_classes_are_not_taken(tmp_path: Path) -> None:
    """The same shards, a cat being class 0 or class 1: two sets, and the rows of one are not those of the other."""
    with tarfile.open(tmp_path / "0.tar", "w") as tar:
        for name, data in {"1.png": image(1), "1.cls": b"cat", "2.png": image(2), "2.cls": b"dog"}.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    made = shards.index(str(tmp_path))
    head = (tmp_path / "manifest.json").read_text()
    (tmp_path / "classnames.txt").write_text("dog\ncat\n")
    again = shards.index(str(tmp_path))
    assert made.digest != again.digest
    (tmp_path / "manifest.json").write_text(head)
    with pytest.raises(DataError, match=r"manifest-samples\.npy belongs to other shards"):
        load(str(tmp_path))


def edit(folder: Path, **change: object) -> None:
    """Change a head; mean, std, bits, depth and channels are those of its images."""
    head = json.loads((folder / "manifest.json").read_text())
    stats = head["fields"]["image"]
    stats |= {name: change.pop(name) for name in stats.keys() & change.keys()}
    (folder / "manifest.json").write_text(json.dumps(head | change))


@pytest.mark.parametrize("version", [1, 2, 3, "4", None])
def test_another_version_is_refused(folder: Path, version: object) -> None:
    edit(folder, version=version)
    with pytest.raises(DataError, match=f"version {version}; expected version 3: run `selfsup shards index"):
        load(str(folder))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"std": [0.2, 0, 0.2]}, r"std\.1: .*greater than 0"),
        ({"std": [0.2, float("nan"), 0.2]}, r"std\.1: "),
        ({"std": [0.2, float("inf"), 0.2]}, r"std\.1: "),
        ({"std": [0.2]}, "3 means and 1 deviations of 3 channels"),
        ({"channels": 1}, "3 means and 3 deviations of 1 channels"),
        ({"depth": 12}, "depth: "),
        ({"depth": 16}, "or one was changed"),
        ({"fields": {}}, "fields: "),
        ({"fields": {"smell": {}}}, "smell is no modality of this version"),
        ({"members": None}, "members: "),
        ({"mean": [0.2, 0.2, 1.01]}, r"mean\.2: .*less than or equal to 1"),
        ({"mean": [-0.1, 0.2, 0.2]}, r"mean\.0: .*greater than or equal to 0"),
        ({"mean": None}, "mean: "),
        ({"num_samples": 12}, "with 12 samples in 4 shards"),
        ({"num_shards": 5}, "with 13 samples in 5 shards"),
        ({"num_samples": 0}, "num_samples: "),
        ({"num_labelled": 14}, "14 labelled samples of 13"),
        ({"num_labelled": 11}, "or one was changed"),
        ({"classes": []}, "12 labelled samples of 13 in 0 classes"),
        ({"classes": ["0", "1"]}, "or one was changed"),
        ({"classes": ["0", "2", "1"]}, "or one was changed"),
        ({"mean": [0.2, 0.2, 0.2]}, "or one was changed"),
        ({"std": [0.2, 0.2, 0.2]}, "or one was changed"),
        ({"rows": "0" * 32}, "or one was changed"),
        ({"rows": "../" * 20}, "rows: "),
        ({"note": "mine"}, "note: "),
    ],
)
def test_a_head_that_was_changed_or_cannot_be_true_is_refused(
    folder: Path, change: dict[str, object], message: str
) -> None:
    edit(folder, **change)
    with pytest.raises(DataError, match=message) as raised:
        load(str(folder))
    assert str(raised.value).endswith(f"run `selfsup shards index {folder}`")


def test_a_manifest_of_the_version_before_is_that_of_images_and_classes(folder: Path) -> None:
    now, path = load(str(folder)), folder / "manifest.json"
    head = json.loads(path.read_text())
    stats = head.pop("fields")["image"]
    older = {"version": "2.1", "fields": head.pop("members"), "mean": stats["mean"], "std": stats["std"], "bits": None}
    path.write_text(json.dumps(head | older))
    assert load(str(folder)) == now
    path.write_text(json.dumps(head | older | {"std": [0.2]}))
    with pytest.raises(DataError, match="3 means and 1 deviations"):
        load(str(folder))


@pytest.mark.parametrize("head", [b"", b"{", b"[1]", b"null", b"\xff\xfe", b"[" * 100_000, b"{}"])
def test_a_head_that_is_none_is_refused(folder: Path, head: bytes) -> None:
    (folder / "manifest.json").write_bytes(head)
    with pytest.raises(DataError, match=r"manifest\.json: not a manifest: .*run `selfsup shards index"):
        load(str(folder))


@pytest.mark.parametrize("data", [b"", b"PAR1" + bytes(60) + b"PAR1"])
def test_a_damaged_table_of_shards_is_refused(folder: Path, data: bytes) -> None:
    (folder / "manifest-shards.parquet").write_bytes(data)
    with pytest.raises(DataError, match=r"manifest-shards\.parquet: damaged: .*run `selfsup shards index"):
        load(str(folder))


@pytest.mark.parametrize("name", ["../0.tar", "/tmp/0.tar", "..", "a\\0.tar", "0\x00.tar", None])
def test_a_shard_whose_name_leads_out_of_the_folder_is_refused(folder: Path, name: str | None) -> None:
    path = folder / "manifest-shards.parquet"
    table = pq.read_table(path)
    pq.write_table(table.set_column(0, "name", pa.array([name, *table["name"].to_pylist()[1:]], pa.string())), path)
    with pytest.raises(
        DataError,
        match=r"manifest-shards\.parquet: a shard is called .*; expected a (file )?name.*run `selfsup shards index",
    ):
        load(str(folder))


def relabel(folder: Path, label: int) -> None:
    path = folder / "manifest-samples.npy"
    data, whole = path.read_bytes(), np.load(path)
    whole["label"] = label
    begin = data.index(np.load(path).tobytes())
    path.write_bytes(data[:begin] + whole.tobytes() + data[begin + whole.nbytes :])


@pytest.mark.parametrize("label", [0, 3, -1, -7])
def test_changed_labels_are_noticed_at_once(folder: Path, label: int) -> None:
    relabel(folder, label)
    for use in (load, shards.check):
        with pytest.raises(DataError, match=r"manifest-samples\.npy: samples 0 to 12 are not as indexed"):
            use(str(folder))


def test_changed_labels_of_many_samples_are_noticed_when_they_are_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    relabel(folder, 2)
    monkeypatch.setattr("selfsup.pipelines.data.rows.MAX_PAGES", 0)  # pages: now these are too many to read them all
    (problem,) = shards.check(str(folder))
    assert "samples 0 to 12 are not as indexed" in problem
    with pytest.raises(DataError, match="samples 0 to 12 are not as indexed"):
        SampleReader(load(str(folder)), "image").read(np.array([3]))


@pytest.mark.parametrize("label", [3, -2])
def test_labels_beyond_the_classes_are_refused_whoever_wrote_them(folder: Path, label: int) -> None:
    told = load(str(folder))
    whole = np.load(folder / "manifest-samples.npy")
    whole["label"][5] = label
    written, _ = write_tables(told.home, told.shards, lambda _: [whole], ["image"], {})
    write_head(replace(told, rows_digest=written.digest, num_labelled=written.num_labelled))
    with pytest.raises(DataError, match="have labels beyond 3 classes"):
        load(str(folder))


def test_the_digest_is_of_labels_places_classes_mean_and_deviation(folder: Path) -> None:
    told = load(str(folder))
    changes = {"rows_digest": "0" * 32, "num_labelled": 3, "classes": ("a",)}
    others = {digest(replace(told, **{name: value})) for name, value in changes.items()}
    stats = told.fields["image"]
    for change in ({"mean": (0.1,) * 3}, {"std": (0.1,) * 3}, {"bits": 12}, {"depth": 16}):
        others.add(digest(replace(told, fields={"image": stats.model_copy(update=change)})))
    assert len(others | {told.digest}) == 8
    assert digest(replace(told, home="elsewhere", root="elsewhere")) == told.digest

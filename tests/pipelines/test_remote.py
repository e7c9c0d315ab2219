"""A data set in an object store: packed there, indexed, checked, read with and without a cache, and lost on the way."""

import logging
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from servers import Web, object_store, web_server

from selfsup.errors import DataError
from selfsup.pipelines.data import shards, storage, tars
from selfsup.pipelines.data.fetch import ReadOptions
from selfsup.pipelines.data.manifest import Manifest, load
from selfsup.pipelines.data.order import SampleOrder
from selfsup.pipelines.data.pack import pack
from selfsup.pipelines.data.reader import SampleReader
from selfsup.pipelines.data.stream import Columns, SampleStream
from selfsup.views import Crop, Views

SAMPLES, SHARD, PIECE = 50, 15, 4
VIEWS = Views((Crop(size=12, scale=(0.4, 1.0)),))


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """A URL with a place for a name in it."""
    with object_store("bucket") as endpoint:
        yield f"s3://bucket/{{}}?endpoint_override={endpoint}&scheme=http"


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory, make: Callable[..., Manifest]) -> Manifest:
    return make(tmp_path_factory.mktemp("local"), number=SAMPLES, shard_size=SHARD)


@pytest.fixture
def copy(
    told: Manifest, bucket: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> str:
    """The same set in the object store, in a folder of this test's own; a cache of this test's own."""
    monkeypatch.setenv("SELFSUP_CACHE", str(tmp_path / "cache"))
    url = bucket.format(re.sub(r"\W", "-", request.node.name))
    for path in Path(told.home).iterdir():
        storage.write(url, path.name, path.read_bytes())
    return url


@pytest.fixture
def web(told: Manifest) -> Iterator[Web]:
    with web_server(Path(told.home)) as server:
        yield server


def everything(told: Manifest) -> list[tuple[str, bytes, int | None]]:
    return [tuple(sample) for sample in SampleReader(told, "image").read(np.arange(told.num_samples))]


def stream_of(told: Manifest) -> SampleStream:
    order = SampleOrder(samples=told.num_samples, batch=8, seed=3, lanes=4, chunk=PIECE, mix=2)
    return SampleStream(told, order, VIEWS, steps=15)


def rows(stream: SampleStream) -> list[Columns]:
    return list(stream.rows(range(4), 0, stream.steps, threads=1, memory=2**26))


def same(one: list[Columns], other: list[Columns]) -> None:
    for row, expected in zip(one, other, strict=True):
        for name in expected:
            np.testing.assert_array_equal(row[name], expected[name], err_msg=name)


def test_packed_there_it_is_the_same_set(told: Manifest, bucket: str) -> None:
    images = Path(told.home).with_name("images")
    url = bucket.format("packed")
    made = pack(images, url, shard_size=SHARD).manifest
    assert (made.digest, made.classes, made.fields["image"].mean, made.fields["image"].std) == (
        told.digest,
        told.classes,
        told.fields["image"].mean,
        told.fields["image"].std,
    )
    assert everything(load(url)) == everything(told)
    assert shards.check(url) == []
    first = storage.open_file(url, "000000.tar", remedy="")
    again = pack(images, url, shard_size=2 * SHARD).manifest  # other shards: those that are too many go
    assert again.num_shards == 2
    assert storage.list_files(url, suffix=".tar") == ["000000.tar", "000001.tar"]
    assert first.size != storage.open_file(url, "000000.tar", remedy="").size


def test_indexed_there_it_is_the_same_set(copy: str, told: Manifest, tmp_path: Path) -> None:
    for name in ("manifest.json", "manifest-shards.parquet", "manifest-samples.npy"):
        storage.remove(copy, name)
    beside = shards.index(copy)
    elsewhere = shards.index(copy, out=str(tmp_path / "notes"))
    assert beside.digest == elsewhere.digest == told.digest
    assert everything(load(copy)) == everything(load(str(tmp_path / "notes"))) == everything(told)


def test_check_names_what_is_bad_there(copy: str) -> None:
    data = bytearray(storage.read(copy, "000001.tar", remedy=""))
    data[700] ^= 255
    storage.write(copy, "000001.tar", bytes(data))
    storage.remove(copy, "000003.tar")
    first, *_, last = shards.check(copy)
    assert first.startswith("000001.tar: changed: its checksum is not that of")
    assert last == "000003.tar: missing"


def test_the_web_serves_it_too(web: Web, told: Manifest, tmp_path: Path) -> None:
    assert everything(load(web.url)) == everything(told)
    assert shards.index(web.url, out=str(tmp_path)).digest == told.digest


@pytest.mark.parametrize("cache", [0, 2**30, 30_000], ids=["none", "room for all", "crowded"])
def test_the_stream_is_the_same_whatever_is_kept(copy: str, told: Manifest, tmp_path: Path, cache: int) -> None:
    stream = stream_of(told)
    remote = replace(stream, manifest=replace(load(copy), read_options=ReadOptions(cache, PIECE)))
    same(rows(remote), rows(stream))
    kept = sum(path.stat().st_size for path in (tmp_path / "cache").rglob("pieces/**/*") if path.is_file())
    assert kept <= cache
    assert (kept > 0) == (cache > 0)


def test_what_is_kept_is_fetched_once_in_whole_pieces(
    web: Web, told: Manifest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """50 samples in shards of 15, pieces of 4: no piece reaches over the end of a shard, which makes 4 + 4 + 4 + 2."""
    monkeypatch.setenv("SELFSUP_CACHE", str(tmp_path))
    remote = replace(load(web.url), read_options=ReadOptions(2**30, PIECE))
    web.asked.clear()
    assert everything(remote) == everything(told)
    assert everything(replace(load(web.url), read_options=ReadOptions(2**30, PIECE))) == everything(told)
    ranges = [line.split()[1:] for line in web.asked if ".tar" in line]
    assert len(ranges) == len({tuple(each) for each in ranges}) == 16
    first = told.rows.take(np.arange(SAMPLES))
    expected = set()
    for start in range(0, SAMPLES, PIECE):
        for shard in {int(each) for each in told.shard(np.arange(start, min(start + PIECE, SAMPLES)))}:
            inside = [n for n in range(start, min(start + PIECE, SAMPLES)) if n // SHARD == shard]
            begin, end = first[inside[0]], first[inside[-1]]
            expected.add(f"/{shard:06d}.tar bytes={begin['start']}-{end['start'] + end['length'] - 1}")
    assert {" ".join(each) for each in ranges} == expected


def test_chunks_are_kept_where_there_is_room_for_all_in_play(told: Manifest) -> None:
    """4 lanes of windows of 4 chunks of 4 samples are 64 samples, more than there are: all 50 are in play."""
    order, size = stream_of(told).order, sum(told.shards["bytes"].to_pylist())
    assert told.with_cache(order, cache=size).read_options == ReadOptions(size, PIECE)
    assert told.with_cache(order, cache=size - 1).read_options == ReadOptions(size - 1, 1)
    share = -(-size // 3)
    assert told.with_cache(order, cache=share, nodes=3).read_options == ReadOptions(share, PIECE)
    assert told.with_cache(order, cache=share - 1, nodes=3).read_options == ReadOptions(share - 1, 1)


def test_a_shard_that_vanishes_ends_the_stream_with_its_name(copy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("selfsup.pipelines.data.stream.READ_SAMPLES", 8)
    stream = replace(stream_of(load(copy)), steps=60)
    coming = stream.rows(range(4), 0, stream.steps, threads=1, memory=2**26)
    next(coming)
    for name in storage.list_files(copy, suffix=".tar"):
        storage.remove(copy, name)
    with pytest.raises(DataError, match=r"00000\d\.tar\?.*: missing; put it back"):
        list(coming)


def test_a_shard_that_changes_ends_the_stream_with_its_name(copy: str) -> None:
    told = load(copy)
    data = storage.read(copy, "000002.tar", remedy="")
    storage.write(copy, "000002.tar", bytes(512) + data[:-512])
    with pytest.raises(DataError, match=r"000002\.tar.* no member of \d+ bytes where one was: truncated"):
        rows(stream_of(told))


def test_a_shard_of_more_samples_than_are_tried_is_replaced_too(told: Manifest, tmp_path: Path) -> None:
    image = SampleReader(told, "image").read(np.array([0]))[0].data
    for shard in range(4):
        (tmp_path / f"{shard}.tar").write_bytes(
            tars.write_tar(((f"{n}", "jpg", image, None) for n in range(200)), mark="")
        )
    whole = shards.index(str(tmp_path))
    (tmp_path / "1.tar").unlink()
    stream = stream_of(replace(whole, read_options=ReadOptions(missing="skip")))
    bad = [len(row["bad"]) for row in rows(stream)]
    lost = [
        (row // 200 == 1).sum() for row in np.concatenate([stream.order.take(n, 0, 15)[1] for n in range(4)], axis=1)
    ]
    assert sum(lost) > 0
    assert [number >= each for number, each in zip(bad, lost, strict=True)] == [True] * 15


def test_a_shard_that_is_skipped_is_replaced_and_counted(
    copy: str, told: Manifest, caplog: pytest.LogCaptureFixture
) -> None:
    expected = rows(stream_of(told))
    storage.remove(copy, "000001.tar")
    remote = replace(load(copy), read_options=ReadOptions(missing="skip"))
    with caplog.at_level(logging.WARNING):
        found = rows(stream_of(remote))
    assert [record.message.count("000001.tar") > 0 for record in caplog.records] == [True]  # told once
    for row, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(row["index"], other["index"])
        hit = row["index"] // SHARD == 1
        np.testing.assert_array_equal(row["view0"][~hit], other["view0"][~hit])
        assert (row["view0"][hit] != other["view0"][hit]).any(axis=(1, 2, 3)).all()
        first = told.rows.take(row["index"][hit])["start"]
        assert {f"000001.tar@{start}" for start in first} <= set(row["bad"])

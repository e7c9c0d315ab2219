"""What a node keeps of remote shards: bounded, whole, shared, and gone without harm."""

import logging
import multiprocessing
import os
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from selfsup.folders import node_cache_folder
from selfsup.pipelines.data import cache
from selfsup.pipelines.data.cache import Cache

SIZE = 1000
FILE = SIZE + 4  # with the checksum of its only block


def content(name: str) -> bytes:
    return (name.encode() * SIZE)[:SIZE]


def refuse() -> bytes:
    raise AssertionError("it is kept, and need not be fetched")


def taken(kept: Cache, name: str, fetch: Callable[[], bytes] | None = None) -> bytes:
    tail, head = kept.read(name, SIZE, [(10, SIZE), (0, 10)], fetch or (lambda: content(name)))
    return head + tail


def held(root: Path) -> dict[str, int]:
    found = {}
    for folder, _, names in os.walk(root / "pieces"):
        for name in names:
            with suppress(FileNotFoundError):  # another process made room
                found[name] = Path(folder, name).stat().st_size
    return found


def test_what_was_fetched_is_kept(tmp_path: Path) -> None:
    for _ in range(2):
        assert taken(Cache(tmp_path, 10 * FILE), "set/00/a") == content("set/00/a")
    assert taken(Cache(tmp_path, 10 * FILE), "set/00/a", refuse) == content("set/00/a")
    assert held(tmp_path) == {"a": FILE}


def test_what_was_used_longest_ago_makes_room(tmp_path: Path) -> None:
    """Room for ten; at the eleventh, nine tenths of it stay filled: the new one and the eight used last."""
    kept = Cache(tmp_path, 10 * FILE)
    for number in range(10):
        taken(kept, f"{number}")
        _age(tmp_path)
    assert len(held(tmp_path)) == 10
    for name in ("0", "3"):
        taken(kept, name, refuse)
        _age(tmp_path)
    taken(kept, "new")
    assert held(tmp_path).keys() == {"0", "3", "4", "5", "6", "7", "8", "9", "new"}
    taken(kept, "another")
    assert len(held(tmp_path)) == 10


def _age(root: Path) -> None:
    """A file system's clock may be too coarse to tell uses apart."""
    for path in (root / "pieces").rglob("*"):
        told = path.stat()
        os.utime(path, ns=(told.st_atime_ns, told.st_mtime_ns - 10**9))


def test_the_limit_is_one_for_all_that_is_kept_whoever_keeps_it(tmp_path: Path) -> None:
    for number in range(40):
        taken(Cache(tmp_path, 10 * FILE), f"{'ab'[number % 2]}/{number}")
        assert sum(held(tmp_path).values()) <= 10 * FILE
    assert len(held(tmp_path)) >= 9


def test_a_piece_larger_than_the_cache_is_not_kept(tmp_path: Path) -> None:
    assert taken(Cache(tmp_path, SIZE), "a") == content("a")
    assert held(tmp_path) == {}


def test_what_a_crash_of_the_machine_cut_is_fetched_again(tmp_path: Path) -> None:
    kept = Cache(tmp_path, 10 * FILE)
    taken(kept, "a")
    (tmp_path / "pieces" / "a").write_bytes(b"half")
    assert taken(kept, "a") == content("a")
    assert taken(kept, "a", refuse) == content("a")


def test_a_flipped_bit_is_fetched_again_where_it_is_asked_for(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A piece of two blocks and a half, of which a bit of the second flips."""
    kept, data = Cache(tmp_path, 2**20), random.Random(0).randbytes(160_000)

    def read(*spans: tuple[int, int], fetch: Callable[[], bytes] = refuse) -> list[bytes]:
        return kept.read("a", len(data), spans, fetch)

    read(fetch=lambda: data)
    spans = [(0, 1), (0, 65536), (131072, 160_000), (70_000, 140_000), (159_999, 160_000)]
    expected = [data[start:stop] for start, stop in spans]
    assert read(*spans) == expected
    with (tmp_path / "pieces" / "a").open("r+b") as file:
        file.seek(100_000)
        file.write(bytes([data[100_000] ^ 8]))
    assert read(*spans[:3]) == expected[:3]
    assert not caplog.text
    assert read(*spans, fetch=lambda: data) == expected
    assert "pieces/a: damaged on disk; fetching it again" in caplog.text
    assert read(*spans) == expected


def test_a_part_left_by_a_process_that_was_killed_makes_room_too(tmp_path: Path) -> None:
    kept = Cache(tmp_path, 10 * FILE)
    taken(kept, "a")
    for name, age in (("old.part", 2 * cache.ABANDONED), ("young.part", 0)):
        (tmp_path / "pieces" / name).write_bytes(bytes(3 * SIZE))
        told = (tmp_path / "pieces" / name).stat().st_mtime
        os.utime(tmp_path / "pieces" / name, (told - age, told - age))
    for number in range(10):
        taken(kept, f"{number}")
    assert "young.part" in held(tmp_path)
    assert "old.part" not in held(tmp_path)


def test_it_may_be_removed_at_any_time(tmp_path: Path) -> None:
    kept = Cache(tmp_path / "cache", 10 * FILE)
    taken(kept, "a")
    (tmp_path / "cache").rename(tmp_path / "away")
    assert taken(kept, "a") == content("a")
    assert taken(kept, "a", refuse) == content("a")


def test_a_disk_that_refuses_is_complained_of_once_and_done_without(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    kept = Cache(tmp_path / "file", 10 * FILE)
    with caplog.at_level(logging.WARNING):
        assert [taken(kept, name) for name in ("a", "a", "b")] == [content("a"), content("a"), content("b")]
    (record,) = caplog.records
    assert "file: fetched data cannot be cached: " in record.message


def test_its_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SELFSUP_CACHE", str(tmp_path))
    assert node_cache_folder() == tmp_path
    monkeypatch.delenv("SELFSUP_CACHE")
    assert str(os.getuid()) in node_cache_folder().name


@pytest.mark.parametrize(("limit", "names"), [(1000, 50), (20, 50)], ids=["room", "crowded"])
def test_processes_share_it(tmp_path: Path, limit: int, names: int) -> None:
    """Three processes of four threads: all is right, the limit holds, and what has room is fetched once."""
    context = multiprocessing.get_context("fork")
    log = tmp_path / "fetched"
    workers = [
        context.Process(target=_hammer, args=(tmp_path / "cache", limit * FILE, names, log, n)) for n in range(3)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert sum(held(tmp_path / "cache").values()) <= limit * FILE
    fetched = log.read_text().split()
    assert len(fetched) == len(set(fetched)) == names if limit > names else len(fetched) > names


def _hammer(root: Path, limit: int, names: int, log: Path, seed: int) -> None:
    kept = Cache(root, limit)

    def fetch(name: str) -> bytes:
        with log.open("a") as file:
            file.write(f"{name}\n")
        return content(name)

    def work(number: int) -> None:
        order = [f"{each % 7}/{each}" for each in range(names)] * 3
        random.Random(10 * seed + number).shuffle(order)
        for name in order:
            assert taken(kept, name, lambda name=name: fetch(name)) == content(name)
            assert sum(held(root).values()) <= limit + 12 * FILE  # parts of twelve threads

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))

"""Readers of one stream, on a real Ray: whoever comes, goes, dies or comes back, each sees the rows of its own Feed."""

import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import yaml
from tiny import BACKBONE

from selfsup.errors import DataError
from selfsup.metrics_log import records
from selfsup.pipelines.data import shared as share
from selfsup.pipelines.data.feed import Feed
from selfsup.pipelines.data.manifest import Manifest
from selfsup.pipelines.data.order import SampleOrder
from selfsup.pipelines.data.shared import SharedFeed
from selfsup.pipelines.data.stream import Columns, SampleStream
from selfsup.pipelines.planned import PlannedRun
from selfsup.pipelines.planning import plan
from selfsup.pipelines.sharing import sort_by_stream
from selfsup.pipelines.stages.runner import perform
from selfsup.spec import read
from selfsup.views import Crop, Views

pytestmark = pytest.mark.usefixtures("cluster")
SAMPLES, BATCH, STEPS, WINDOW = 40, 8, 60, 6
VIEWS = Views((Crop(size=96), Crop(size=8, scale=(0.1, 0.5))))
PACE = 0.02  # seconds that a reader spends on a step


@pytest.fixture(scope="module")
def stream(tmp_path_factory: pytest.TempPathFactory, make: Callable[..., Manifest]) -> SampleStream:
    told = make(tmp_path_factory.mktemp("set"), number=SAMPLES)
    return SampleStream(told, SampleOrder(samples=SAMPLES, batch=BATCH, seed=5, lanes=4, chunk=3, mix=2), VIEWS, STEPS)


@pytest.fixture(scope="module")
def expected(stream: SampleStream) -> list[Columns]:
    return list(feed_of(stream).steps(0))


@pytest.fixture
def shared(stream: SampleStream, request: pytest.FixtureRequest) -> Callable[..., SharedFeed]:
    """(reader, peers=...) -> one of the readers of this test."""

    def shared(reader: str, peers: int = 1, of: SampleStream = stream) -> SharedFeed:
        return SharedFeed(feed_of(of), request.node.name, reader, peers)

    return shared


def feed_of(stream: SampleStream) -> Feed:
    return Feed(stream, 0, 1, "threads", cpus=1.0, memory=WINDOW * stream.step_bytes(4))


class Reader:
    """A thread that reads from step `start` on, and holds all rows. error: what ended it before its time."""

    def __init__(self, shared: SharedFeed, start: int = 0, stop: int = STEPS, pace: float = PACE) -> None:
        self.shared, self.first = shared, start
        self.rows: list[Columns] = []
        self.error: Exception | None = None
        self._thread = threading.Thread(target=self._read, args=(stop, pace), daemon=True)
        self._thread.start()

    def _read(self, stop: int, pace: float) -> None:
        try:
            for _, row in zip(range(self.first, stop), steps := self.shared.steps(self.first), strict=False):
                self.rows.append(row)
                time.sleep(pace)
            steps.close()
        except Exception as error:
            self.error = error

    def at(self, step: int) -> "Reader":
        """Once it has come to this step."""
        while self.first + len(self.rows) <= step and self._thread.is_alive():
            time.sleep(0.001)
        return self

    def ended(self) -> "Reader":
        self._thread.join(20)
        assert not self._thread.is_alive(), "it waits for ever"
        return self

    def done(self) -> "Reader":
        assert self.ended().error is None
        return self


def same(rows: list[Columns], expected: list[Columns]) -> None:
    assert len(rows) == len(expected)
    for row, other in zip(rows, expected, strict=True):
        assert row.keys() == other.keys()
        for name in other:
            np.testing.assert_array_equal(row[name], other[name], err_msg=name)


def place(row: Columns) -> int:
    return int(row["view0"].__array_interface__["data"][0])


@pytest.mark.parametrize("number", [1, 2, 4])
def test_all_readers_map_what_was_made_once(
    shared: Callable[..., SharedFeed], expected: list[Columns], number: int
) -> None:
    """Two in one process see a step at one address: there is one object, and no copy of it."""
    readers = [Reader(shared(f"r{each}", number)) for each in range(number)]
    for reader in readers:
        same(reader.done().rows, expected)
        assert reader.shared.taken == STEPS
        assert [place(row) for row in reader.rows] == [place(row) for row in readers[0].rows]
        assert not any(row["view0"].flags.writeable for row in reader.rows)


def test_readers_join_and_leave_at_any_time(shared: Callable[..., SharedFeed], expected: list[Columns]) -> None:
    first = Reader(shared("first"))
    first.at(10)
    second = Reader(shared("second"), start=10, stop=30)
    second.at(20)
    third = Reader(shared("third"), start=18)
    third.at(30)
    fourth = Reader(shared("fourth"), pace=0.0)  # far behind, but not for long
    same(first.done().rows, expected)
    same(second.done().rows, expected[10:30])
    same(third.done().rows, expected[18:])
    same(fourth.done().rows, expected)
    assert first.shared.taken == STEPS
    assert second.shared.taken + third.shared.taken > 40
    assert fourth.shared.taken < STEPS


def test_a_slow_reader_goes_on_alone(shared: Callable[..., SharedFeed], expected: list[Columns]) -> None:
    fast, slow = Reader(shared("fast", 2)), Reader(shared("slow", 2), pace=10 * PACE, stop=25)
    same(fast.done().rows, expected)
    same(slow.done().rows, expected[:25])
    assert fast.shared.taken == STEPS
    assert 0 < slow.shared.taken < 25


@ray.remote(num_cpus=0)
class Elsewhere:
    """A reader in a process of its own."""

    def __init__(self, shared: SharedFeed) -> None:
        self._steps = shared.steps(0)

    def read(self, number: int) -> int:
        for _ in range(number):
            next(self._steps)
        return os.getpid()


def test_a_killed_reader_is_waited_for_no_longer_than_a_window(
    shared: Callable[..., SharedFeed], expected: list[Columns]
) -> None:
    other = Elsewhere.remote(shared("killed", 2))  # type: ignore[attr-defined]
    one = Reader(shared("one", 2))
    os.kill(ray.get(other.read.remote(8)), signal.SIGKILL)
    same(one.done().rows, expected)
    assert one.shared.taken == STEPS
    again = Reader(shared("killed"), start=4)  # resumed from its checkpoint
    same(again.done().rows, expected[4:])


def test_the_hub_outlives_the_reader_that_made_it(shared: Callable[..., SharedFeed], expected: list[Columns]) -> None:
    first = Elsewhere.remote(shared("first", 2))  # type: ignore[attr-defined]
    creator = ray.get(first.read.remote(1))
    second = Reader(shared("second", 2)).at(1)
    os.kill(creator, signal.SIGKILL)
    same(second.done().rows, expected)
    assert second.shared.taken == STEPS


def test_a_lost_hub_stops_nobody_and_is_replaced(
    shared: Callable[..., SharedFeed], expected: list[Columns], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(share, "RETRY_SECONDS", 0.2)
    readers = [Reader(shared(name, 2)) for name in "ab"]
    readers[0].at(15)
    ray.kill(readers[0].shared.server())
    for reader in readers:
        same(reader.done().rows, expected)
        assert 25 < reader.shared.taken < STEPS
    assert place(readers[0].rows[-1]) == place(readers[1].rows[-1])


def test_a_longer_stream_goes_on_where_a_shorter_one_ends(
    shared: Callable[..., SharedFeed], stream: SampleStream, expected: list[Columns]
) -> None:
    short = Reader(shared("short", 2, of=replace(stream, steps=20)))
    long = Reader(shared("long", 2))
    same(short.done().rows, expected[:20])
    same(long.done().rows, expected)
    assert short.shared.taken == 20
    assert long.shared.taken == STEPS


def test_an_error_of_the_data_is_every_readers_own(
    shared: Callable[..., SharedFeed], tmp_path: Path, make: Callable[..., Manifest], stream: SampleStream
) -> None:
    damaged = make(tmp_path, number=SAMPLES)
    (tmp_path / "shards" / "000001.tar").unlink()
    for name in "ab":
        reader = Reader(shared(name, 2, of=replace(stream, manifest=damaged)))
        assert isinstance(reader.ended().error, DataError)


TINY: dict[str, Any] = {
    "name": "tiny",
    "method": "simclr",
    "backbone": BACKBONE,
    "optim": {"name": "sgd", "lr": 0.05, "lr_rule": "none", "weight_decay": 0.0},
    "train": {"duration": {"steps": 20}, "batch": 8, "checkpoint_every": 10, "log_every": 5},
    "stream": {"lanes": 4},
    "baselines": False,
    "resources": {"cpus_per_worker": 0.9, "data_cpus": 0.1},
}


@pytest.fixture
def trained(stream: SampleStream, tmp_path: Path) -> Callable[..., list[PlannedRun]]:
    """(home, share) -> two temperatures, trained at the same time as the driver would have them."""

    def trained(home: str, share: str) -> list[PlannedRun]:
        listed = []
        for temperature in (0.1, 0.5):
            said = TINY | {"data": {"train": stream.manifest.root}, "hyper": {"temperature": temperature}}
            said["stream"] = TINY["stream"] | {"share": share}
            (tmp_path / "spec.yaml").write_text(yaml.safe_dump(said))
            listed += plan(read(tmp_path / "spec.yaml"), tmp_path / home)
        runs = sort_by_stream(listed, 2)
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(perform, runs))
        return runs

    return trained


def test_runs_that_share_a_stream_train_as_they_would_alone(trained: Callable[..., list[PlannedRun]]) -> None:
    stages = {how: [run.pretrain for run in trained(how, how)] for how in ("auto", "never")}
    for together, alone in zip(stages["auto"], stages["never"], strict=True):
        assert together
        assert alone
        assert together.key == alone.key
        losses = [[each.values["loss"] for each in records(stage.spool)] for stage in (together, alone)]
        assert len(losses[0]) == 4
        assert losses[0] == losses[1]
        assert together.result()["shared_steps"] == 20
        assert "shared_steps" not in alone.result()


def test_a_hub_ends_once_nobody_reads(shared: Callable[..., SharedFeed]) -> None:
    def running() -> bool:
        return any("ends_once" in each["name"] for each in ray.util.list_named_actors(all_namespaces=True))

    reader = Reader(shared("only"), stop=5)
    reader.at(1)
    assert running()
    reader.done()
    since = time.monotonic()
    while running():
        assert time.monotonic() - since < 10 * share.IDLE_SECONDS
        time.sleep(0.1)

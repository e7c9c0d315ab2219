"""What a stream costs does not grow with its data set: it holds no list of samples, and reads what it is asked for."""

import pickle
import tracemalloc
from collections.abc import Iterator

import fsspec
import numpy as np
import pytest
from benchmarks.scale import Made

from selfsup.pipelines.data import rows
from selfsup.pipelines.data.feed import Feed, StreamDatasource
from selfsup.pipelines.data.manifest import load
from selfsup.pipelines.data.order import SampleOrder
from selfsup.pipelines.data.reader import SampleReader
from selfsup.pipelines.data.stream import SampleStream
from selfsup.views import Crop, Views

BILLION = 10**9


@pytest.fixture
def made() -> Iterator[type[Made]]:
    fsspec.register_implementation("made", Made, clobber=True)
    yield Made
    Made.clear_instance_cache()


def stream_of(shards: int, *, epochs: int) -> SampleStream:
    told = load(f"made://{shards}-5000/set")
    order = SampleOrder(samples=told.num_samples, batch=256, seed=0)
    return SampleStream(told, order, Views((Crop(size=224),)), epochs * order.steps_per_epoch)


@pytest.mark.parametrize("shards", [40, 4000])
def test_a_read_touches_the_rows_and_the_shards_of_its_samples(made: type[Made], shards: int) -> None:
    asked = made(shards=shards, samples=5000)
    told = load(f"made://{shards}-5000/set")
    reader, index = SampleReader(told, "image"), np.array([5, 6, 100_003, 199_999])
    asked.asked.clear()
    asked.rows_read = 0
    assert [sample.key for sample in reader.read(index)] == ["5", "6", "3", "4999"]
    pages = {int(each) for each in index // rows.PAGE}
    last = min(rows.PAGE, told.num_samples - max(pages) * rows.PAGE)
    assert asked.rows_read == ((len(pages) - 1) * rows.PAGE + last) * rows.ROW.itemsize
    assert set(asked.asked) == {rows.NAME, "000000.tar", "000020.tar", "000039.tar"}


@pytest.mark.usefixtures("made")
def test_what_is_sent_to_a_task_and_the_number_of_tasks_are_bounded() -> None:
    sent, tasks = [], []
    for shards, epochs in [(40, 1), (40, 100), (2000, 1), (2000, 100)]:
        source = StreamDatasource(Feed(stream_of(shards, epochs=epochs), 0, 1, "ray", 1.0, 2**28), 0)
        made = source.get_read_tasks(1)
        sent.append(len(pickle.dumps(made[-1]._read_fn)))
        tasks.append(len(made))
    assert max(sent) - min(sent) < 50
    assert max(sent) < 5000
    assert max(tasks) <= 2001


@pytest.mark.parametrize("step", [0, 100 * (BILLION // 1024) - 2])
def test_the_order_of_a_billion_samples_is_found_where_it_is_needed(step: int) -> None:
    """A window of a lane is 8 x 16 x 128 sample numbers of 8 bytes, and working space a few times as large."""
    order = SampleOrder(samples=BILLION, batch=1024, seed=0)
    tracemalloc.start()
    try:
        epoch, index = order.take(3, step, step + 2)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (epoch == (0 if step == 0 else 99)).all()
    assert len(np.unique(index)) == 256
    assert index.max() < BILLION
    assert peak < 40 * order.window * 8

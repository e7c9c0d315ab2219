"""The steps of a stream that each task makes. That Ray's tasks make the same ones: see test_pretrain."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from selfsup.pipelines.data.feed import MAX_TASKS, Feed, FeedPlan, segments
from selfsup.pipelines.data.manifest import Manifest
from selfsup.pipelines.data.order import SampleOrder
from selfsup.pipelines.data.stream import SampleStream
from selfsup.views import Crop, Views

MEMORY = 2**26


@pytest.fixture(scope="module")
def stream(tmp_path_factory: pytest.TempPathFactory, make: Callable[..., Manifest]) -> SampleStream:
    told = make(tmp_path_factory.mktemp("whole"), number=50)
    return SampleStream(
        told, SampleOrder(samples=50, batch=8, seed=3, lanes=4, chunk=4, mix=2), Views((Crop(size=16),)), 10
    )


@pytest.mark.parametrize("start", [0, 4])
def test_two_workers_share_lanes_and_cpus(stream: SampleStream, start: int) -> None:
    feeds = [FeedPlan(stream, "threads", 3.0, MEMORY).feed(rank, 2) for rank in range(2)]
    assert [(feed.cpus, feed.threads) for feed in feeds] == [(1.5, 2)] * 2
    for feed, lanes in zip(feeds, [(0, 1), (2, 3)], strict=True):
        got = np.stack([row["index"] for row in feed.steps(start)])
        expected = np.concatenate([stream.order.take(lane, start, 10)[1] for lane in lanes], axis=1)
        np.testing.assert_array_equal(got, expected)


def test_a_stream_that_is_over_is_empty(stream: SampleStream) -> None:
    assert list(Feed(stream, 0, 1, "threads", 1.0, MEMORY).steps(10)) == []
    assert list(Feed(stream, 0, 1, "ray", 1.0, MEMORY).steps(10)) == []


@pytest.mark.parametrize("steps", [1, 17, 3000, 500_000])
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_segments_cover_what_is_left_and_stay_few(stream: SampleStream, steps: int, share: float) -> None:
    start = int(share * steps)
    found = segments(replace(stream, steps=steps), start)
    assert [step for first, last in found for step in range(first, last)] == list(range(start, steps))
    assert len(found) <= MAX_TASKS + 1


def test_a_segment_is_a_whole_window_where_that_makes_few_enough(stream: SampleStream) -> None:
    length = stream.order.window // stream.order.per_lane
    longer = replace(stream, steps=3 * length + 1)
    assert segments(longer, 2) == [(2, length + 2), (length + 2, 2 * length + 2), (2 * length + 2, 3 * length + 1)]

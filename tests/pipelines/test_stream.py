"""What a training stream holds, whoever makes which part of it. Ray is left out here: see test_feed."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional as TF

from selfsup.errors import DataError
from selfsup.pipelines.data.buffers import BufferPool
from selfsup.pipelines.data.manifest import Manifest
from selfsup.pipelines.data.order import SampleOrder
from selfsup.pipelines.data.philox import CROP, uniform
from selfsup.pipelines.data.reader import SampleReader
from selfsup.pipelines.data.stream import Columns, SampleStream, _StepMaker
from selfsup.pipelines.modalities.pixels.decode import decode
from selfsup.views import CROP_DRAWS, Crop, Views, boxes, flips

SAMPLES, BATCH, LANES, STEPS, SEED = 50, 8, 4, 15, 3  # six steps an epoch
PLENTY = 2**28
CROPS = (Crop(size=16, scale=(0.5, 1.0)), Crop(size=20, scale=(0.8, 1.0), resample="bilinear"))


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory, make: Callable[..., Manifest]) -> Manifest:
    return make(tmp_path_factory.mktemp("whole"), number=SAMPLES)


def stream_of(told: Manifest, *, steps: int = STEPS) -> SampleStream:
    order = SampleOrder(samples=told.num_samples, batch=BATCH, seed=SEED, lanes=LANES, chunk=4, mix=2)
    return SampleStream(told, order, Views(CROPS), steps)


def rows_of(
    stream: SampleStream, lanes: Sequence[int] = range(LANES), first: int = 0, last: int | None = None, threads: int = 2
) -> Iterator[Columns]:
    return stream.rows(lanes, first, stream.steps if last is None else last, threads=threads, memory=PLENTY)


def joined(rows: Sequence[Columns]) -> Columns:
    """Rows of steps -> columns (steps, samples, ...), `bad` as one list."""
    names = [name for name in rows[0] if name != "bad"]
    bad = np.concatenate([row["bad"] for row in rows])
    return {name: np.stack([row[name] for row in rows]) for name in names} | {"bad": bad}


def same(one: Columns, other: Columns) -> None:
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)


def whole(stream: SampleStream) -> Columns:
    return joined(list(rows_of(stream)))


def places(lanes: Sequence[int]) -> list[int]:
    """Where the samples of some lanes stand among those of a step."""
    each = BATCH // LANES
    return [lane * each + sample for lane in lanes for sample in range(each)]


def by_hand(told: Manifest, crop: Crop, *, view: int, sample: int, epoch: int, of: int) -> torch.Tensor:
    """A view of `sample`, with the draws that belong to sample `of`, as torchvision makes it; in floats."""
    (data,) = (each.data for each in SampleReader(told, "image").read(np.array([sample])))
    image = torch.tensor(decode(data, min_height=1000, min_width=1000))  # more than it has: the whole of it
    purpose = CROP + 16 * view
    draws = uniform(seed=SEED, epoch=np.array([epoch]), index=np.array([of]), purpose=purpose, draws=CROP_DRAWS)
    height, width = (np.array([length]) for length in image.shape[:2])
    box, how = boxes(crop, height, width, draws)[0].astype(int).tolist(), TF.InterpolationMode(crop.resample)
    size = [crop.size or 0] * 2
    cut = TF.resized_crop(image.permute(2, 0, 1).double(), *box, size, how, antialias=True).clamp(0, 255)
    return (cut.flip(2) if flips(crop, draws)[0] else cut).permute(1, 2, 0)


def near(ours: np.ndarray, hand: torch.Tensor) -> None:
    """But for rounding to bytes, between the passes of the filter, too."""
    assert np.abs(ours - hand.numpy()).max() < 3


def test_a_view_is_the_crop_and_flip_that_its_sample_draws(told: Manifest) -> None:
    stream, turned = stream_of(told), set()
    for row in rows_of(stream, [1, 3], 5, 8):  # of two epochs
        for place, (epoch, sample) in enumerate(zip(row["epoch"], row["index"], strict=True)):
            for view, crop in enumerate(CROPS):
                made = by_hand(told, crop, view=view, sample=sample, epoch=epoch, of=sample)
                near(row[f"view{view}"][place], made)
        turned |= set(row["epoch"].tolist())
    assert turned == {0, 1}


def test_a_row_says_where_its_views_lie_and_what_they_show(told: Manifest) -> None:
    for row in rows_of(stream_of(told), [0, 2], 0, 4):
        samples = SampleReader(told, "image").read(row["index"])
        assert row["label"].tolist() == [-1 if each.label is None else each.label for each in samples]
        for view, crop in enumerate(CROPS):
            for place, sample in enumerate(samples):
                image = torch.tensor(decode(sample.data, min_height=1000, min_width=1000)).permute(2, 0, 1).double()
                top, left, height, width, mirrored, *size = row[f"box{view}"][place].astype(int).tolist()
                assert size == list(image.shape[1:])
                how = TF.InterpolationMode(crop.resample)
                cut = TF.resized_crop(image, top, left, height, width, [crop.size or 0] * 2, how, antialias=True)
                cut = cut.flip(2) if mirrored else cut
                near(row[f"view{view}"][place], cut.clamp(0, 255).permute(1, 2, 0))


def test_a_view_of_an_earlier_one_is_the_same_part_of_the_sample(told: Manifest) -> None:
    """Twice as fine, at another scale of its own, which then counts for nothing; and of that one again."""
    first, fine = Crop(size=8, scale=(0.3, 0.6)), Crop(size=16, scale=(0.9, 1.0), of=1)
    crops = CROPS[0], first, fine, replace(fine, of=2)
    row = next(rows_of(replace(stream_of(told), views=Views(crops))))
    assert not np.array_equal(row["box0"], row["box1"])
    for view in (2, 3):
        np.testing.assert_array_equal(row[f"box{view}"], row["box1"])
        for place, (epoch, sample) in enumerate(zip(row["epoch"], row["index"], strict=True)):
            hand = by_hand(told, replace(first, size=16), view=1, sample=sample, epoch=epoch, of=sample)
            near(row[f"view{view}"][place], hand)


def test_a_view_of_a_later_one_is_refused() -> None:
    with pytest.raises(AssertionError, match="view 0 is of view 1"):
        Views((replace(CROPS[0], of=1), CROPS[1]))


def test_rows_are_those_that_the_order_names(told: Manifest) -> None:
    stream = stream_of(told)
    rows = whole(stream)
    taken = [stream.order.take(lane, 0, STEPS) for lane in range(LANES)]
    np.testing.assert_array_equal(rows["epoch"], np.concatenate([epoch for epoch, _ in taken], axis=1))
    np.testing.assert_array_equal(rows["index"], np.concatenate([index for _, index in taken], axis=1))
    assert len(rows["bad"]) == 0


@pytest.mark.parametrize("world", [2, 4])
def test_any_number_of_workers_reads_the_same_samples(told: Manifest, world: int) -> None:
    stream = stream_of(told)
    expected = whole(stream)
    for rank in range(world):
        lanes = list(stream.order.served_by(rank, world))
        theirs = {name: column[:, places(lanes)] for name, column in expected.items() if name != "bad"}
        same(joined(list(rows_of(stream, lanes))), theirs | {"bad": expected["bad"]})


@pytest.mark.parametrize("cuts", [[0, 1, STEPS], [0, 7, 12, STEPS], list(range(STEPS + 1))])
@pytest.mark.parametrize("group", [1, 3 * BATCH, 10**6])
def test_any_cut_of_the_steps_gives_the_same(
    told: Manifest, cuts: list[int], group: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = stream_of(told)
    expected = whole(stream)
    monkeypatch.setattr("selfsup.pipelines.data.stream.READ_SAMPLES", group)
    same(
        joined([row for first, last in pairwise(cuts) for row in rows_of(stream, range(LANES), first, last)]), expected
    )


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("piece", [1, 3, 100])
@pytest.mark.parametrize("memory", [1, PLENTY])
def test_neither_threads_nor_memory_change_anything(
    told: Manifest, threads: int, piece: int, memory: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = stream_of(told)
    expected = whole(stream)
    monkeypatch.setattr("selfsup.pipelines.data.stream.PIECE", piece)
    same(joined(list(stream.rows(range(LANES), 0, STEPS, threads=threads, memory=memory))), expected)


@pytest.mark.parametrize("keep", [0, 300], ids=["no header", "cut short"])
def test_a_corrupted_sample_is_replaced_by_the_next_one_and_named(
    told: Manifest, tmp_path: Path, make: Callable[..., Manifest], spoil: Callable[..., None], keep: int
) -> None:
    expected = whole(stream_of(told))
    damaged = make(tmp_path, number=SAMPLES)
    victim = int(expected["index"][2, 5])
    spoil(damaged, [victim], keep=keep)
    rows = list(rows_of(stream_of(damaged)))
    got, hit = joined(rows), expected["index"] == victim
    assert 2 <= hit.sum() < hit.size  # once an epoch, but for what an epoch drops
    np.testing.assert_array_equal(got["index"], expected["index"])
    (key,) = (sample.key for sample in SampleReader(told, "image").read(np.array([victim])))
    assert [row["bad"].tolist() for row in rows] == [[key] * int(step.sum()) for step in hit]
    for view, crop in enumerate(CROPS):
        name = f"view{view}"
        np.testing.assert_array_equal(got[name][~hit], expected[name][~hit])
        for made, epoch in zip(got[name][hit], expected["epoch"][hit], strict=True):
            next_one = (victim + 1) % SAMPLES
            hand = by_hand(told, crop, view=view, sample=next_one, epoch=epoch, of=victim)
            near(made, hand)
    for lanes in ([0, 2], [1, 3]):  # whatever worker meets it
        theirs = joined(list(rows_of(stream_of(damaged), lanes)))
        np.testing.assert_array_equal(theirs["view0"], got["view0"][:, places(lanes)])


def test_neighbors_that_are_corrupted_too_are_passed_over_and_named(
    told: Manifest, tmp_path: Path, make: Callable[..., Manifest], spoil: Callable[..., None]
) -> None:
    damaged = make(tmp_path, number=SAMPLES)
    victims = [SAMPLES - 2, SAMPLES - 1, 0]
    spoil(damaged, victims, keep=0)
    (row,) = _holding(stream_of(damaged), SAMPLES - 2)
    place = row["index"].tolist().index(SAMPLES - 2)
    epoch = int(row["epoch"][place])
    hand = by_hand(told, CROPS[0], view=0, sample=1, epoch=epoch, of=SAMPLES - 2)
    near(row["view0"][place], hand)
    assert set(row["bad"]) == {sample.key for sample in SampleReader(told, "image").read(np.array(victims))}


def _holding(stream: SampleStream, sample: int) -> list[Columns]:
    """The first step that holds a sample."""
    with closing(rows_of(stream)) as rows:
        return [next(row for row in rows if sample in row["index"])]


def test_a_set_that_cannot_be_decoded_ends_the_stream(
    tmp_path: Path, make: Callable[..., Manifest], spoil: Callable[..., None]
) -> None:
    damaged = make(tmp_path, number=10)
    spoil(damaged, list(range(10)), keep=0)
    with pytest.raises(DataError, match=r"shards: 100 samples in a row cannot be decoded"):
        next(rows_of(stream_of(damaged)))


@pytest.mark.parametrize("memory", [1, 3 * 2**17, 2**20])
def test_no_more_is_made_ahead_than_memory_holds(told: Manifest, memory: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step of 8 samples at 16 and 20 pixels a side is 15,744 bytes. The taker holds one; one is always made ahead."""
    begun: list[int] = []
    begin = _StepMaker._begin
    monkeypatch.setattr(_StepMaker, "_begin", lambda self, *args: begun.append(1) or begin(self, *args))
    monkeypatch.setattr("selfsup.pipelines.data.stream.PIECE", 100)  # threads alone would have 400 steps begun
    stream = stream_of(told, steps=1000)
    with closing(stream.rows(range(LANES), 0, 1000, threads=8, memory=memory)) as rows:
        for taken in range(1, 4):
            next(rows)
            time.sleep(0.05)
            assert taken < len(begun) <= taken + max(1, memory // 15_744 - 1)


def test_threads_end_with_the_rows_however_they_end(
    told: Manifest, tmp_path: Path, make: Callable[..., Manifest], spoil: Callable[..., None]
) -> None:
    before = threading.active_count()
    list(rows_of(stream_of(told)))
    assert threading.active_count() == before
    with closing(rows_of(stream_of(told))) as rows:
        next(rows)
        assert threading.active_count() > before
    assert threading.active_count() == before
    damaged = make(tmp_path, number=10)
    spoil(damaged, list(range(10)), keep=0)
    with pytest.raises(DataError):
        next(rows_of(stream_of(damaged)))
    assert threading.active_count() == before


def test_memory_is_used_again_once_nobody_holds_any_part_of_it() -> None:
    blanks = BufferPool()
    first, other = blanks.take((4, 3, 3, 3)), blanks.take((4, 3, 3, 3))
    place, part = first.ctypes.data, torch.from_numpy(first[1:])
    assert not np.shares_memory(first, other)
    del first
    assert blanks.take((4, 3, 3, 3)).ctypes.data != place
    del part
    assert blanks.take((2, 3, 3, 3)).ctypes.data != place
    assert blanks.take((4, 3, 3, 3)).ctypes.data == place

"""The order of a stream, as arithmetic."""

import numpy as np
import pytest

from selfsup.pipelines.lanes import Lanes

SIZES = [(1000, 40), (997, 40), (64, 64), (4000, 64), (70, 8), (41, 40), (10, 8)]


def epoch_of(order: Lanes, number: int) -> np.ndarray:
    first = number * order.steps_per_epoch
    return np.stack([order.take(lane, first, first + order.steps_per_epoch)[1] for lane in range(order.lanes)])


@pytest.mark.parametrize(("samples", "batch"), SIZES)
def test_drop_sees_every_sample_at_most_once_and_leaves_out_less_than_a_batch(samples: int, batch: int) -> None:
    order = Lanes(samples=samples, batch=batch, seed=1, lanes=8, chunk=16, mix=4)
    for number in range(3):
        seen = epoch_of(order, number).ravel()
        assert len(set(seen)) == len(seen) > samples - batch
        assert set(seen) <= set(range(samples))


@pytest.mark.parametrize(("samples", "batch"), SIZES)
def test_wrap_sees_every_sample_and_repeats_less_than_a_batch(samples: int, batch: int) -> None:
    order = Lanes(samples=samples, batch=batch, seed=1, lanes=8, chunk=16, mix=4, remainder="wrap")
    seen = epoch_of(order, 2).ravel()
    assert set(seen) == set(range(samples))
    assert len(seen) - samples < batch


def test_what_is_dropped_changes_from_epoch_to_epoch() -> None:
    order = Lanes(samples=997, batch=40, seed=1, chunk=16)
    left_out = [frozenset(range(997)) - frozenset(epoch_of(order, number).ravel().tolist()) for number in range(4)]
    assert len(set(left_out)) == 4


def test_any_cut_into_segments_gives_the_same_order() -> None:
    order = Lanes(samples=997, batch=40, seed=1, chunk=16, mix=4)
    epoch, whole = order.take(3, 0, 100)
    for cut in [1, 7, 24, 50, 99]:
        parts = order.take(3, 0, cut), order.take(3, cut, 100)
        assert (np.concatenate([parts[0][1], parts[1][1]]) == whole).all()
        assert (np.concatenate([parts[0][0], parts[1][0]]) == epoch).all()
    assert (epoch[:, 0] == np.arange(100) // 24).all()


def test_every_lane_is_served_once_whatever_the_number_of_workers() -> None:
    order = Lanes(samples=1000, batch=40, seed=1)
    for world in [1, 2, 4, 8]:
        assert sorted(lane for rank in range(world) for lane in order.served_by(rank, world)) == list(range(8))


def test_seeds_and_epochs_give_unrelated_orders() -> None:
    base = epoch_of(Lanes(samples=4000, batch=40, seed=1), 0).ravel()
    for other in [
        epoch_of(Lanes(samples=4000, batch=40, seed=1), 1),
        epoch_of(Lanes(samples=4000, batch=40, seed=2), 0),
    ]:
        assert abs(np.corrcoef(base, other.ravel())[0, 1]) < 0.05


def test_a_batch_mixes_classes_that_lie_sorted_in_the_shards() -> None:
    """4096 samples in 16 sorted classes, batches of 64: a full permutation shows 16 (1 - (15/16)^64) = 15.7 classes."""
    order = Lanes(samples=4096, batch=64, seed=0, lanes=8, chunk=32, mix=16)
    batches = epoch_of(order, 0).transpose(1, 0, 2).reshape(64, 64) // 256
    assert np.mean([len(set(batch)) for batch in batches]) > 14

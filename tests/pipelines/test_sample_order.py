"""The order of a stream, as arithmetic."""

import numpy as np
import pytest

from selfsup.pipelines.data.order import SampleOrder, _window_bounds

SIZES = [(1000, 40), (997, 40), (64, 64), (4000, 64), (70, 8), (41, 40), (10, 8)]


def epoch_of(order: SampleOrder, number: int) -> np.ndarray:
    first = number * order.steps_per_epoch
    return np.stack([order.take(lane, first, first + order.steps_per_epoch)[1] for lane in range(order.lanes)])


@pytest.mark.parametrize(("samples", "batch"), SIZES)
def test_drop_sees_every_sample_at_most_once_and_leaves_out_less_than_a_batch(samples: int, batch: int) -> None:
    order = SampleOrder(samples=samples, batch=batch, seed=1, lanes=8, chunk=16, mix=4)
    for number in range(3):
        seen = epoch_of(order, number).ravel()
        assert len(set(seen)) == len(seen) > samples - batch
        assert set(seen) <= set(range(samples))


@pytest.mark.parametrize(("samples", "batch"), SIZES)
def test_wrap_sees_every_sample_and_repeats_less_than_a_batch(samples: int, batch: int) -> None:
    order = SampleOrder(samples=samples, batch=batch, seed=1, lanes=8, chunk=16, mix=4, remainder="wrap")
    seen = epoch_of(order, 2).ravel()
    assert set(seen) == set(range(samples))
    assert len(seen) - samples < batch


def test_what_is_dropped_changes_from_epoch_to_epoch() -> None:
    order = SampleOrder(samples=997, batch=40, seed=1, chunk=16)
    left_out = [frozenset(range(997)) - frozenset(epoch_of(order, number).ravel().tolist()) for number in range(4)]
    assert len(set(left_out)) == 4


def test_any_cut_into_segments_gives_the_same_order() -> None:
    order = SampleOrder(samples=997, batch=40, seed=1, chunk=16, mix=4)
    epoch, whole = order.take(3, 0, 100)
    for cut in [1, 7, 24, 50, 99]:
        parts = order.take(3, 0, cut), order.take(3, cut, 100)
        assert (np.concatenate([parts[0][1], parts[1][1]]) == whole).all()
        assert (np.concatenate([parts[0][0], parts[1][0]]) == epoch).all()
    assert (epoch[:, 0] == np.arange(100) // 24).all()


def test_workers_one_after_another_have_all_lanes_in_turn_whatever_their_number() -> None:
    order = SampleOrder(samples=1000, batch=40, seed=1)
    for world in [1, 2, 4, 8]:
        assert [lane for rank in range(world) for lane in order.served_by(rank, world)] == list(range(8))


def test_seeds_and_epochs_give_unrelated_orders() -> None:
    base = epoch_of(SampleOrder(samples=4000, batch=40, seed=1), 0).ravel()
    for other in [
        epoch_of(SampleOrder(samples=4000, batch=40, seed=1), 1),
        epoch_of(SampleOrder(samples=4000, batch=40, seed=2), 0),
    ]:
        assert abs(np.corrcoef(base, other.ravel())[0, 1]) < 0.05


def test_windows_end_at_steps_spread_over_the_lanes_and_none_is_short() -> None:
    """9 windows a lane; the cut of lane 0 lies 7/16 of a window before the mean of the lanes, that of lane 7 behind.

    Between them are 4, 2, 6, 1, 5 and 3, in this order, so that those of any half or quarter of the lanes are spread.
    """
    order = SampleOrder(samples=9 * 8 * 128 * 4, batch=32, seed=0, lanes=8, chunk=8, mix=16)
    assert order.window == 8 * 16 * 4
    cuts = np.array([_window_bounds(order, lane) for lane in range(8)])
    lengths = np.diff(cuts) / order.window
    assert lengths.shape == (8, 9)
    assert (lengths[:, 1:-1] == 1).all()
    np.testing.assert_allclose(lengths[:, 0], [9 / 16 + turn / 8 for turn in (0, 4, 2, 6, 1, 5, 3, 7)])
    np.testing.assert_allclose(lengths[:, 0] + lengths[:, -1], 2)


def test_a_lane_shorter_than_a_window_is_shuffled_whole() -> None:
    order = SampleOrder(samples=1000, batch=40, seed=1, lanes=8, chunk=8, mix=16)
    assert [_window_bounds(order, lane).tolist() for lane in (0, 7)] == [[0, 125], [0, 125]]


@pytest.fixture(scope="module")
def sorted_classes() -> list[np.ndarray]:
    """Two epochs (500, 256) of the default order, over 1000 classes of 128 samples that lie sorted in the shards."""
    order = SampleOrder(samples=128_000, batch=256, seed=7)
    return [epoch_of(order, number).transpose(1, 0, 2).reshape(500, 256) for number in range(2)]


def test_a_batch_has_nearly_as_many_classes_as_one_of_a_full_permutation(sorted_classes: list[np.ndarray]) -> None:
    """Each of 256 samples shares its step with any of 7 others of its chunk in 31 of 4095 cases (a lane's other places
    in the step, in the window), so that a batch is of 256 (1 - 7 * 31 / 4095 / 2) = 249.2 chunks, out of 16000, of
    which each class has 16; a full permutation draws 256 samples, out of 128000, of which each class has 128.
    """
    mean = np.mean([len(np.unique(batch)) for batch in sorted_classes[0] // 128])
    expected = 1000 * (1 - (1 - 249.2 / 16_000) ** 16)
    assert mean == pytest.approx(expected, rel=0.005)  # of one batch it deviates by 2 %, of the mean of 500 by 0.1 %
    assert mean > 0.97 * 1000 * (1 - (1 - 256 / 128_000) ** 128)


def test_epochs_are_uncorrelated(sorted_classes: list[np.ndarray]) -> None:
    """Positions: chunks of 8 move together, so that 16000 are drawn, and chance makes 1 / sqrt(16000) of it.
    Pairs: two that share a batch do so again in 255 of 127999 cases, but the 6.8 pairs of one chunk in 31 of 4095.
    """
    position = np.empty((2, 128_000))
    for epoch, batches in enumerate(sorted_classes):
        position[epoch, batches.ravel()] = np.arange(batches.size)
    assert abs(np.corrcoef(position)[0, 1]) < 4 / np.sqrt(16_000)
    assert abs(np.corrcoef(position[0], np.arange(128_000))[0, 1]) < 4 / np.sqrt(16_000)
    both = (position // 256).astype(int)
    _, together = np.unique(both[0] * 500 + both[1], return_counts=True)
    again = (together * (together - 1) // 2).sum()
    pairs = 500 * 256 * 255 / 2
    assert again == pytest.approx(pairs * 255 / 127_999 + 500 * 6.8 * 31 / 4095, abs=5 * np.sqrt(pairs * 255 / 127_999))

"""The order of samples in the training stream, a pure function of (samples, batch, seed, step).

The order is defined on a fixed number of lanes, independent of the number of workers. Each epoch permutes chunks of
consecutive samples, splits the permuted sequence into one contiguous part per lane, and shuffles every window of a
lane, many chunks long. Every step takes the same number of samples from every lane, and each of W workers serves L / W
lanes, the first those from 0 on. So another W, a kill, or a resume at any step gives the same samples without replaying
any, and the same batch, row by row, where those of all workers are joined.

`mix` sets how close the order is to a full permutation: on average, 1 / mix others of its chunk share a sample's batch.
From the first use of a chunk to its last, up to `chunk * mix` steps pass. The windows of lanes end at different steps,
those of neighbors far apart, so that a reader that fetches a chunk at its first use fetches at an even rate.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np

from selfsup.pipelines.data.philox import ORDER, Ints, permute, shuffled, uniform

_CHUNK_SALT = (0xFFFFFFFF, 0)  # different from any (lane, window)


@dataclass(frozen=True)
class SampleOrder:
    """The order of one stream. samples: in the data set. batch: samples per step, of all lanes together."""

    samples: int
    batch: int
    seed: int
    lanes: int = 8
    chunk: int = 8
    mix: int = 16
    remainder: Literal["drop", "wrap"] = "drop"

    def __post_init__(self) -> None:
        assert self.batch % self.lanes == 0, "the spec ensures that lanes divide the batch"
        assert self.steps_per_epoch > 0, "the plan ensures that the data set holds a batch"

    @property
    def per_lane(self) -> int:
        return self.batch // self.lanes

    @property
    def steps_per_epoch(self) -> int:
        """Return the steps of an epoch; its last partial batch is dropped, or filled from the epoch's beginning."""
        return self.samples // self.batch if self.remainder == "drop" else -(-self.samples // self.batch)

    @property
    def length(self) -> int:
        """Return the samples of a lane in an epoch."""
        return self.steps_per_epoch * self.per_lane

    @property
    def window(self) -> int:
        """Return the samples of a lane that are shuffled together, except at the ends of an epoch."""
        return self.chunk * self.mix * self.per_lane

    @property
    def in_play(self) -> int:
        """Return the number of samples in chunks, of all lanes, that are between their first use and their last."""
        return min(self.samples, self.window * self.lanes)

    def served_by(self, rank: int, world: int) -> range:
        share = self.lanes // world
        return range(rank * share, (rank + 1) * share)

    def take(self, lane: int, start: int, stop: int) -> tuple[Ints, Ints]:
        """-> epochs, sample numbers, each (stop - start, batch / lanes), of a lane in steps [start, stop)"""
        step = np.arange(start, stop, dtype=np.int64)
        epoch, within = np.divmod(step, self.steps_per_epoch)
        position = within[:, None] * self.per_lane + np.arange(self.per_lane)
        epoch = np.broadcast_to(epoch[:, None], position.shape)
        cuts = _window_bounds(self, lane)
        window = np.searchsorted(cuts, position, side="right") - 1
        index = np.empty_like(position)
        for number, which in np.unique(np.stack([epoch.ravel(), window.ravel()]), axis=1).T:
            inside = (epoch == number) & (window == which)
            index[inside] = _samples(self, lane, int(which), int(number))[position[inside] - cuts[which]]
        return epoch, index


@lru_cache(maxsize=64)
def _window_bounds(order: SampleOrder, lane: int) -> Ints:
    """-> (windows + 1,) boundaries of the windows of a lane; the first and last window are 1/2 to 3/2 as long"""
    windows = max(1, round(order.length / order.window))
    offset = (2 * _turns(order.lanes)[lane] + 1 - order.lanes) / (2 * order.lanes)  # from the mean of all, in windows
    inner = (np.arange(1, windows) + offset) * order.length / windows
    return np.array([0, *inner, order.length], dtype=np.int64)


@lru_cache(maxsize=64)
def _turns(lanes: int) -> Ints:
    """-> (lanes,) the place of each lane in the order of their numbers' bits, read from the last to the first"""
    return np.argsort(sorted(range(lanes), key=lambda lane: f"{lane:016b}"[::-1]))


@lru_cache(maxsize=64)
def _samples(order: SampleOrder, lane: int, window: int, epoch: int) -> Ints:
    """-> (window,) sample numbers of one window of a lane, in its order"""
    first, last = _window_bounds(order, lane)[window : window + 2]
    permutation = shuffled(int(last - first), seed=order.seed, epoch=epoch, salt=(lane, window))
    return _permuted_chunks(order, lane * order.length + np.arange(first, last, dtype=np.int64), epoch)[permutation]


def _permuted_chunks(order: SampleOrder, place: Ints, epoch: int) -> Ints:
    """(n,) places in the epoch's sequence of permuted chunks -> (n,) sample numbers

    The last chunk may be shorter than the others and cannot be permuted among them: it is inserted at a random slot.
    """
    place = place % order.samples
    full, tail = divmod(order.samples, order.chunk)
    short = int(_draw(order.seed, epoch) * (full + 1)) * order.chunk
    index = full * order.chunk + place - short  # of the short chunk; the others follow
    others = (place < short) | (place >= short + tail)
    slot, within = np.divmod(np.where(place >= short, place - tail, place)[others], order.chunk)
    used, where = np.unique(slot, return_inverse=True)
    chunk = permute(used, full, seed=order.seed, epoch=epoch, salt=_CHUNK_SALT)
    index[others] = chunk[where] * order.chunk + within
    return index


def _draw(seed: int, epoch: int) -> float:
    zero = np.zeros(1, dtype=np.int64)
    return float(uniform(seed=seed, epoch=zero + epoch, index=zero, purpose=ORDER, draws=1).item())

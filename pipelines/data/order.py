"""Which sample stands where in the training stream: arithmetic on (samples, batch, seed, step), and nothing else.

The order is defined on a fixed number of lanes, whatever number of workers feeds from them. Each epoch permutes chunks
of consecutive samples, deals the permuted sequence out over the lanes, and shuffles every window of a lane, many chunks
long. Every step takes the same number of samples from every lane; worker r of W serves lanes r, r+W, ... So a change of
W, a kill, or a resume at any step finds the same samples without replaying anything.

How close it comes to a full permutation is a matter of `mix`: on average, 1 / mix others of its chunk share a sample's
batch. From the first use of a chunk to its last, up to `chunk * mix` steps pass. The lanes' windows end at different
steps, so that a reader that fetches a chunk at its first use fetches at an even rate.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np

from selfsup.pipelines.data.philox import ORDER, Ints, permute, shuffled, uniform

_CHUNKS = (0xFFFFFFFF, 0)  # a salt that no (lane, window) reaches


@dataclass(frozen=True)
class SampleOrder:
    """The order of one stream. `samples` in the data set, `batch` taken by all lanes together in a step."""

    samples: int
    batch: int
    seed: int
    lanes: int = 8
    chunk: int = 8
    mix: int = 16
    remainder: Literal["drop", "wrap"] = "drop"

    def __post_init__(self) -> None:
        assert self.batch % self.lanes == 0, "the spec checks that a batch divides over the lanes"
        assert self.steps_per_epoch > 0, "the plan checks that a data set holds a batch"

    @property
    def per_lane(self) -> int:
        return self.batch // self.lanes

    @property
    def steps_per_epoch(self) -> int:
        """drop: the last partial batch of an epoch is left out; wrap: it is filled up from the epoch's beginning."""
        return self.samples // self.batch if self.remainder == "drop" else -(-self.samples // self.batch)

    @property
    def length(self) -> int:
        """Samples that a lane gives in an epoch."""
        return self.steps_per_epoch * self.per_lane

    @property
    def window(self) -> int:
        """Consecutive samples of a lane that are shuffled together, but for rounding and the ends of an epoch."""
        return self.chunk * self.mix * self.per_lane

    @property
    def in_play(self) -> int:
        """Samples of the chunks, of all lanes, that are between their first use and their last."""
        return min(self.samples, self.window * self.lanes)

    def served_by(self, rank: int, world: int) -> range:
        return range(rank, self.lanes, world)

    def take(self, lane: int, start: int, stop: int) -> tuple[Ints, Ints]:
        """Epoch and sample number, each (stop - start, batch / lanes), of what `lane` gives to steps [start, stop)."""
        step = np.arange(start, stop, dtype=np.int64)
        epoch, within = np.divmod(step, self.steps_per_epoch)
        position = within[:, None] * self.per_lane + np.arange(self.per_lane)
        epoch = np.broadcast_to(epoch[:, None], position.shape)
        cuts = _cuts(self, lane)
        window = np.searchsorted(cuts, position, side="right") - 1
        index = np.empty_like(position)
        for number, which in np.unique(np.stack([epoch.ravel(), window.ravel()]), axis=1).T:
            inside = (epoch == number) & (window == which)
            index[inside] = _samples(self, lane, int(which), int(number))[position[inside] - cuts[which]]
        return epoch, index


@lru_cache(maxsize=64)
def _cuts(order: SampleOrder, lane: int) -> Ints:
    """(windows + 1,) where the windows of a lane begin and its epoch ends. Those at the ends are 1/2 to 3/2 as long."""
    windows = max(1, round(order.length / order.window))
    ahead = (2 * lane + 1 - order.lanes) / (2 * order.lanes)  # of the mean of all lanes, in windows
    inner = (np.arange(1, windows) + ahead) * order.length / windows
    return np.array([0, *inner, order.length], dtype=np.int64)


@lru_cache(maxsize=64)
def _samples(order: SampleOrder, lane: int, window: int, epoch: int) -> Ints:
    """(window,): the sample numbers of one window of a lane, in the order in which the lane gives them."""
    first, last = _cuts(order, lane)[window : window + 2]
    mixed = shuffled(int(last - first), seed=order.seed, epoch=epoch, salt=(lane, window))
    return _dealt(order, lane * order.length + np.arange(first, last, dtype=np.int64), epoch)[mixed]


def _dealt(order: SampleOrder, place: Ints, epoch: int) -> Ints:
    """(n,) -> (n,): places in the epoch's sequence of permuted chunks -> sample numbers.

    The chunk that is shorter than the others cannot be permuted among them: it goes in at a slot of its own.
    """
    place = place % order.samples
    full, tail = divmod(order.samples, order.chunk)
    short = int(_draw(order.seed, epoch) * (full + 1)) * order.chunk
    index = full * order.chunk + place - short  # right within the short chunk
    others = (place < short) | (place >= short + tail)
    slot, within = np.divmod(np.where(place >= short, place - tail, place)[others], order.chunk)
    used, where = np.unique(slot, return_inverse=True)
    chunk = permute(used, full, seed=order.seed, epoch=epoch, salt=_CHUNKS)
    index[others] = chunk[where] * order.chunk + within
    return index


def _draw(seed: int, epoch: int) -> float:
    nought = np.zeros(1, dtype=np.int64)
    return float(uniform(seed=seed, epoch=nought + epoch, index=nought, purpose=ORDER, draws=1).item())

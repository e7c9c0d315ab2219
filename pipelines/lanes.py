"""Which sample stands where in the training stream: arithmetic on (samples, batch, seed, step), and nothing else.

The order is defined on a fixed number of lanes, whatever number of workers feeds from them. Each epoch permutes chunks
of consecutive samples, deals the permuted sequence out over the lanes, and shuffles the samples of several chunks
together within a lane. Every step takes the same number of samples from every lane; worker r of W serves lanes
r, r+W, ... So a change of W, a kill, or a resume at any step finds the same samples without replaying anything.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from selfsup.pipelines.counted import ORDER, Ints, permute, uniform

_CHUNKS = (0xFFFFFFFF, 0)  # a salt that no (lane, window) reaches


@dataclass(frozen=True)
class Lanes:
    """The order of one stream. `samples` in the data set, `batch` taken by all lanes together in a step."""

    samples: int
    batch: int
    seed: int
    lanes: int = 8
    chunk: int = 32
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
    def window(self) -> int:
        """Consecutive positions of a lane that are shuffled together."""
        return self.chunk * self.mix

    def served_by(self, rank: int, world: int) -> range:
        return range(rank, self.lanes, world)

    def take(self, lane: int, start: int, stop: int) -> tuple[Ints, Ints]:
        """Epoch and sample number, each (stop - start, batch / lanes), of what `lane` gives to steps [start, stop)."""
        step = np.arange(start, stop, dtype=np.int64)
        epoch, within = np.divmod(step, self.steps_per_epoch)
        position = within[:, None] * self.per_lane + np.arange(self.per_lane)
        index = np.empty_like(position)
        for number in np.unique(epoch):
            rows = epoch == number
            index[rows] = self._sample(self._mixed(lane, position[rows], int(number)), int(number))
        return np.broadcast_to(epoch[:, None], index.shape), index

    def _mixed(self, lane: int, position: Ints, epoch: int) -> Ints:
        """A lane's positions -> places in the epoch's sequence, shuffled within each window."""
        length = self.steps_per_epoch * self.per_lane
        place = np.empty_like(position)
        for window in np.unique(position // self.window):
            inside = position // self.window == window
            first = int(window) * self.window
            size = min(self.window, length - first)
            salt = (lane, int(window))
            place[inside] = first + permute(position[inside] - first, size, seed=self.seed, epoch=epoch, salt=salt)
        return lane * length + place

    def _sample(self, place: Ints, epoch: int) -> Ints:
        """Places in the epoch's sequence -> sample numbers. The one short chunk goes in at a slot of its own."""
        place = place % self.samples
        full, tail = divmod(self.samples, self.chunk)
        short = int(_draw(self.seed, epoch) * (full + 1))
        after = place >= short * self.chunk + tail
        slot, within = np.divmod(np.where(after, place - tail, place), self.chunk)
        in_short = ~after & (place >= short * self.chunk)
        chunk = np.where(in_short, full, self._chunk(np.where(in_short, 0, slot), full, epoch))
        return np.where(in_short, full * self.chunk + place - short * self.chunk, chunk * self.chunk + within)

    def _chunk(self, slot: Ints, full: int, epoch: int) -> Ints:
        if full == 0:
            return slot
        return permute(slot.ravel(), full, seed=self.seed, epoch=epoch, salt=_CHUNKS).reshape(slot.shape)


def _draw(seed: int, epoch: int) -> float:
    nought = np.zeros(1, dtype=np.int64)
    return float(uniform(seed=seed, epoch=nought + epoch, index=nought, purpose=ORDER, draws=1).item())

"""The window of steps that a stream server keeps for several readers, and its rules of waiting; without Ray.

A window holds consecutive steps: a few that no reader has come to yet, and behind these as many as fit. The oldest
makes room for the next once all readers are past it. Where one is not, the readers in front wait for it, in total no
longer than a window takes them; then the slow ones are dropped, or the fast ones if these are fewer. Readers less than
a window before or behind it are waited for alike.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from statistics import fmean
from typing import Generic, TypeVar

AHEAD = 4  # steps prepared before any reader requests them
MAX_WAIT = 30.0  # seconds that readers are held back, even where a window takes them longer
PACE_STEPS = 64  # over which a reader's pace is averaged
SLACK = 1 / 16  # share of their time that readers may lose to others for good: equal ones take turns in front
LOST_AFTER = 60.0  # seconds, beyond a window's time, after which a silent reader counts as dead

Step = TypeVar("Step")


@dataclass
class _Reader:
    """step: the first that it still needs. requested: when it asked for that, one step early; waiting: not given yet.

    durations: seconds that it spent on each of the latest steps.
    """

    step: int
    requested: float
    durations: deque[float]
    waiting: bool = True

    @property
    def pace(self) -> float:
        return fmean(self.durations or [0.0])


class StepWindow(Generic[Step]):
    """A sliding window of steps. Times are seconds of any monotonic clock.

    length: maximum of steps. peers: readers expected at the start; until all have come, the first step is kept.
    """

    def __init__(self, start: int, length: int, peers: int) -> None:
        self._start = self._low = start
        self._length, self._missing = length, peers
        self._steps: deque[Step] = deque()
        self._readers: dict[str, _Reader] = {}
        self._dropped: set[str] = set()  # not waited for until they are in the window again
        self._waited = 0.0  # seconds that the readers in front have waited, less what is forgiven

    @property
    def high(self) -> int:
        """Return the step to be prepared next."""
        return self._low + len(self._steps)

    def request(self, name: str, step: int, duration: float | None, now: float) -> bool:
        """Register a reader's request; return whether it should wait for the step, or else prepare it itself.

        duration: seconds that it spent on its latest step.
        """
        known = self._readers.pop(name, None)
        if self._low <= step <= self.high:
            self._dropped.discard(name)
        reach = 0 if name in self._dropped else self._length
        if not self._low - reach <= step <= self.high + reach:
            return False
        self._missing -= known is None
        durations = known.durations if known else deque[float](maxlen=PACE_STEPS)
        durations.extend([] if duration is None else [duration])
        self._readers[name] = _Reader(step, now, durations)
        return step >= self._low

    def is_waiting(self, name: str, step: int) -> bool:
        """Return whether a reader still waits for a step."""
        reader = self._readers.get(name)
        return reader is not None and reader.waiting and reader.step == step

    def give(self, name: str) -> Step | None:
        """Return the step that a reader waits for; None while it is not there."""
        reader = self._readers[name]
        if reader.step >= self.high:
            return None
        if reader.step == self._front:
            self._waited = max(0.0, self._waited - SLACK * reader.pace)
        step = self._steps[reader.step - self._low]
        reader.step, reader.waiting = reader.step + 1, False
        return step

    def leave(self, name: str) -> None:
        self._readers.pop(name, None)

    def is_empty(self, now: float) -> bool:
        """Return whether there are no readers, after dropping those that have been silent for too long."""
        for name in self._names(lambda reader: now - reader.requested > LOST_AFTER + self._length * reader.pace):
            self.leave(name)
        return not self._readers

    def make_room(self, since: float, now: float) -> bool:
        """Return whether the next step, ready at `since` already, fits now. May drop readers."""
        if not self._readers or self.high - self._front >= AHEAD:
            return False
        if len(self._steps) < self._length or not self._oldest_needed:
            return True
        if front := self._names(lambda reader: reader.waiting and reader.step >= self.high):
            self._waited += max(0.0, now - max(since, min(self._due(name) for name in front)))
            if self._waited > min(MAX_WAIT, max(self._length * self._readers[name].pace for name in front)):
                self._drop_minority(front)
        return not self._oldest_needed

    def push(self, step: Step) -> None:
        """Append the next step; there must be room."""
        if len(self._steps) == self._length:
            self._steps.popleft()
            self._low += 1
        self._steps.append(step)

    @property
    def _front(self) -> int:
        return max(reader.step for reader in self._readers.values())

    @property
    def _oldest_needed(self) -> bool:
        """Return whether a reader has yet to read the oldest step."""
        absent = self._missing > 0 and self._low == self._start
        return absent or any(reader.step <= self._low for reader in self._readers.values())

    def _due(self, name: str) -> float:
        """Return when a reader will need the step that it waits for."""
        return self._readers[name].requested + self._readers[name].pace

    def _drop_minority(self, front: list[str]) -> None:
        """Drop the readers that need the oldest step, or those in front if they are fewer."""
        dropped, self._missing = self._names(lambda reader: reader.step <= self._low), 0
        if dropped and len(front) < len(self._readers) - len(front):
            dropped, self._waited = front, 0.0
        for name in dropped:
            self._dropped.add(name)
            self.leave(name)

    def _names(self, condition: Callable[[_Reader], bool]) -> list[str]:
        return [name for name, reader in self._readers.items() if condition(reader)]

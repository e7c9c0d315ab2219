"""Which steps of a stream are held for several readers, and how long the first of them wait for the last. No Ray here.

A window holds consecutive steps: a few that no reader has come to yet, and behind these as many as there is room for.
The oldest makes room for the next once all readers are past it. Where one is not, the first wait for it, together no
longer than a window takes them; then who holds the others back leaves, or who is ahead, whichever are fewer. Readers
that are less than a window away from it, before or behind, are waited for alike.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from statistics import fmean
from typing import Generic, TypeVar

AHEAD = 4  # steps made before anyone asks for them
LONGEST = 30.0  # seconds that readers are held back, even where a window takes them longer
RECENT = 64  # steps that a reader's pace is the mean of
SLACK = 1 / 16  # of their time that readers may lose to others for good: equals are now and then before, now behind
QUIET = 60.0  # seconds, and a window's time, after which a reader that is not heard of is no more

Held = TypeVar("Held")


@dataclass
class _Reader:
    """step: the first that it still needs; it was `asked` for one step early, and until it is given the reader `waits`.

    took: seconds of its own for each of the latest steps.
    """

    step: int
    asked: float
    took: deque[float]
    waits: bool = True

    @property
    def pace(self) -> float:
        return fmean(self.took or [0.0])


class Window(Generic[Held]):
    """Times are in seconds, of any clock that only goes forward.

    length: steps held at most. peers: readers that come at the start; until all have come, the first step is kept as if
    they had asked for it.
    """

    def __init__(self, start: int, length: int, peers: int) -> None:
        self._start = self._low = start
        self._length, self._missing = length, peers
        self._steps: deque[Held] = deque()
        self._readers: dict[str, _Reader] = {}
        self._left: set[str] = set()  # who left will not be waited for until it is in the window
        self._lost = 0.0  # seconds that the first have waited for others, less what is forgiven

    @property
    def high(self) -> int:
        """The step to be made next."""
        return self._low + len(self._steps)

    def ask(self, name: str, step: int, took: float | None, now: float) -> bool:
        """Whether a reader, whose latest step took it so long, is to wait for this one; else it makes it itself."""
        known = self._readers.pop(name, None)
        if self._low <= step <= self.high:
            self._left.discard(name)
        reach = 0 if name in self._left else self._length
        if not self._low - reach <= step <= self.high + reach:
            return False
        self._missing -= known is None
        times = known.took if known else deque[float](maxlen=RECENT)
        times.extend([] if took is None else [took])
        self._readers[name] = _Reader(step, now, times)
        return step >= self._low

    def waits(self, name: str, step: int) -> bool:
        """Whether a reader still is to be given a step."""
        reader = self._readers.get(name)
        return reader is not None and reader.waits and reader.step == step

    def give(self, name: str) -> Held | None:
        """The step that a reader waits for, once it is there."""
        reader = self._readers[name]
        if reader.step >= self.high:
            return None
        if reader.step == self._lead:
            self._lost = max(0.0, self._lost - SLACK * reader.pace)
        held = self._steps[reader.step - self._low]
        reader.step, reader.waits = reader.step + 1, False
        return held

    def leave(self, name: str) -> None:
        self._readers.pop(name, None)

    def empty(self, now: float) -> bool:
        """Whether nobody reads here, or nobody that did is heard of any more."""
        for name in self._named(lambda each: now - each.asked > QUIET + self._length * each.pace):
            self.leave(name)
        return not self._readers

    def room(self, since: float, now: float) -> bool:
        """Whether the next step, which was there at `since` already, can be held now. May make readers leave."""
        if not self._readers or self.high - self._lead >= AHEAD:
            return False
        if len(self._steps) < self._length or not self._needed:
            return True
        if first := self._named(lambda each: each.waits and each.step >= self.high):
            self._lost += max(0.0, now - max(since, min(self._due(name) for name in first)))
            if self._lost > min(LONGEST, max(self._length * self._readers[name].pace for name in first)):
                self._part(first)
        return not self._needed

    def push(self, held: Held) -> None:
        """The next step; there must be room."""
        if len(self._steps) == self._length:
            self._steps.popleft()
            self._low += 1
        self._steps.append(held)

    @property
    def _lead(self) -> int:
        return max(each.step for each in self._readers.values())

    @property
    def _needed(self) -> bool:
        """Whether a reader has still to come to the oldest step, or past it."""
        absent = self._missing > 0 and self._low == self._start
        return absent or any(each.step <= self._low for each in self._readers.values())

    def _due(self, name: str) -> float:
        """When a reader will miss the step that it waits for."""
        return self._readers[name].asked + self._readers[name].pace

    def _part(self, first: list[str]) -> None:
        last, self._missing = self._named(lambda each: each.step <= self._low), 0
        if last and len(first) < len(self._readers) - len(first):
            last, self._lost = first, 0.0
        for name in last:
            self._left.add(name)
            self.leave(name)

    def _named(self, which: Callable[[_Reader], bool]) -> list[str]:
        return [name for name, each in self._readers.items() if which(each)]

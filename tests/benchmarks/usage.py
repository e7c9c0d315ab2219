"""What this process and all below it use, read from Linux's /proc."""

import os
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
EVERY = 0.5  # seconds


class Usage:
    """CPU seconds so far, and the peak of memory since this was made."""

    def __init__(self) -> None:
        self._peak, self._ended = 0, threading.Event()
        threading.Thread(target=self._watch, daemon=True).start()

    @staticmethod
    def cpu() -> float:
        return sum(_cpu(process) for process in _tree())

    def peak(self) -> int:
        """Bytes; a page that n processes share counts as an nth for each. The watch ends."""
        self._ended.set()
        return self._peak

    def _watch(self) -> None:
        while not self._ended.wait(EVERY):
            self._peak = max(self._peak, sum(_memory(process) for process in _tree()))


def _tree() -> Iterator[Path]:
    """This process and its descendants."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parents[stat.parent] = int(stat.read_text().rpartition(") ")[2].split()[1])
    level = [Path("/proc") / str(os.getpid())]
    while level:
        yield from level
        numbers = {int(process.name) for process in level}
        level = [process for process, parent in parents.items() if parent in numbers]


def _cpu(process: Path) -> float:
    """Seconds, with those of children that have ended."""
    with suppress(OSError):
        return sum(map(int, (process / "stat").read_text().rpartition(") ")[2].split()[11:15])) / TICKS
    return 0.0


def _memory(process: Path) -> int:
    with suppress(OSError):
        pss = next(line for line in (process / "smaps_rollup").read_text().splitlines() if line.startswith("Pss:"))
        return 1024 * int(pss.split()[1])
    return 0

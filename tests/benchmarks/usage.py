"""What this process and all below it use, read from Linux's /proc."""

import os
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
EVERY = 0.5  # seconds


class Usage:
    """CPU seconds, and the peak of memory. What a process used before it ended stays counted."""

    def __init__(self) -> None:
        self._seen: dict[tuple[str, str], int] = {}  # by process and start: ticks, as last seen
        self._peak, self._ended, self._lock = 0, threading.Event(), threading.Lock()
        threading.Thread(target=self._watch, daemon=True).start()

    def cpu(self) -> float:
        with self._lock:
            self._seen |= dict(_ticks(process) for process in _tree())
            return sum(self._seen.values()) / TICKS

    def peak(self) -> int:
        """Bytes; a page that n processes share counts as an nth for each. The watch ends."""
        self._ended.set()
        return self._peak

    def _watch(self) -> None:
        while not self._ended.wait(EVERY):
            self._peak = max(self._peak, sum(_memory(process) for process in _tree()))
            self.cpu()


def seconds_of(title: str) -> float:
    """CPU seconds of the processes whose titles begin so."""
    named = [command.parent for command in Path("/proc").glob("[0-9]*/cmdline") if _title(command).startswith(title)]
    return sum(_ticks(process)[1] for process in named) / TICKS


def _title(command: Path) -> str:
    with suppress(OSError):
        return command.read_text()
    return ""


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


def _ticks(process: Path) -> tuple[tuple[str, str], int]:
    """Without those of children: Ray does not wait for its workers, so theirs would be lost when they end."""
    with suppress(OSError):
        told = (process / "stat").read_text().rpartition(") ")[2].split()
        return (process.name, told[19]), int(told[11]) + int(told[12])
    return ("", ""), 0


def _memory(process: Path) -> int:
    with suppress(OSError):
        pss = next(line for line in (process / "smaps_rollup").read_text().splitlines() if line.startswith("Pss:"))
        return 1024 * int(pss.split()[1])
    return 0

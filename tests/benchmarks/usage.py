"""What this process and all below it, or a command, use, read from Linux's /proc."""

import ctypes
import os
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

TICKS = os.sysconf("SC_CLK_TCK")
EVERY = 0.5  # seconds
OFTEN, SELDOM = 0.1, 2.0  # seconds between looks at the CPU and the memory of a command
SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER of <linux/prctl.h>


class Used(NamedTuple):
    """What a command used: seconds of the clock, seconds of CPU, the peak of memory in MiB."""

    wall: float
    cpu: float
    memory: float


def used_by(argv: Sequence[str], environment: Mapping[str, str], often: float = OFTEN) -> Used:
    """What a command and all below it use, those too that leave its tree. Raises CalledProcessError where it fails.

    A page that n processes share counts as an nth for each. The last `often` seconds of a process are not seen, by
    half of it in the mean; ten looks a second take a sixth of a core.
    """
    ctypes.CDLL(None).prctl(SUBREAPER, 1, 0, 0, 0)  # orphans become ours
    earlier = dict(map(_ticks, _tree())).keys()  # orphans of other commands, too
    seen: dict[tuple[str, str], int] = {}
    peak, looked, began = 0, 0.0, time.monotonic()
    process = subprocess.Popen(argv, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    output: list[bytes] = []
    reader = threading.Thread(target=lambda: output.append(process.communicate()[0]))
    reader.start()
    while reader.is_alive():
        below = {key: (path, ticks) for path in _tree() for key, ticks in [_ticks(path)] if key not in earlier}
        seen |= {key: ticks for key, (_, ticks) in below.items()}
        if time.monotonic() - looked > SELDOM:
            peak, looked = max(peak, sum(_memory(path) for path, _ in below.values())), time.monotonic()
        reader.join(often)
    wall = time.monotonic() - began
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, argv, output[0].decode())
    return Used(wall, sum(seen.values()) / TICKS, peak / 2**20)


class Usage:
    """CPU seconds, and the peak of memory. What a process used before it ended stays counted, but for its end.

    A look takes 20 ms and, for each process with a torch, 30 more: where none ends, look seldom.
    """

    def __init__(self, every: float = EVERY) -> None:
        self._every = every
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
        while not self._ended.wait(self._every):
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

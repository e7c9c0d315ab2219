"""Progress of running stages: one live line each in a terminal, a line every ten seconds in a log."""

import io
import math
import re
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from time import monotonic, time
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from selfsup.metrics_log import tail
from selfsup.screen import colored

if TYPE_CHECKING:
    from selfsup.stage import Stage  # with torch, which `selfsup --help` need not wait for

LINE = "{desc} {percentage:3.0f}% |{bar:16}| {n_fmt}/{total_fmt} steps{postfix}  {elapsed}<{remaining}"
LOG_SECONDS = 10.0
UNITS = (("h", 3600), ("min", 60), ("s", 1))


def several(number: int, one: str, many: str = "") -> str:
    """Return a number with its noun: `1 shard`, `2 shards`."""
    return f"{number:,} {one if number == 1 else many or f'{one}s'}"


def number_of(kind: str, number: int) -> str:
    """Return a number of files or folders of a kind, which is plural: `1 .txt file`, `3 hidden files`."""
    singular = re.sub("(file|folder)s", r"\1", kind, count=1)
    return several(number, singular, kind)


def labelling(classes: int, labelled: int, samples: int) -> str:
    """Return such as `2 classes, all labelled`, `2 classes, 12 of 16 labelled` or `no labels`."""
    share = "all" if labelled == samples else f"{labelled:,} of {samples:,}"
    return f"{several(classes, 'class', 'classes')}, {share} labelled" if labelled else "no labels"


def say(line: str) -> None:
    """Print a line to stderr, above any progress bars."""
    tqdm.write(colored(line, err=True), file=sys.stderr)


def say_left_out(undecodable: Mapping[str, str], others: Mapping[str, int], verb: str) -> None:
    """Print a line for each sample that cannot be decoded, with the reason, and for each kind of other files.

    others: their number. verb: such as "decoded".
    """
    for name, why in undecodable.items():
        say(f"left out, since it cannot be {verb}: {name}: {why}")
    for kind, number in sorted(others.items()):
        say(f"left out: {number_of(kind, number)}")


class Bar(tqdm):  # type: ignore[type-arg]
    """A live bar in a terminal; elsewhere a line now and then, without control characters."""

    def __init__(self, **options: Any) -> None:
        self._live, self._logged = sys.stderr.isatty(), 0.0
        interval, sink = (0.1, sys.stderr) if self._live else (LOG_SECONDS, io.StringIO())
        super().__init__(file=sink, mininterval=interval, ascii=not self._live, **options)

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        if self._live:
            super().display(msg, pos)
        elif self.n > self._logged:
            self._logged = self.n
            say(str(self))


class Remaining:
    """An estimate of the time left for several pieces of work. work: of each by its name, in any unit."""

    def __init__(self, work: Mapping[str, float]) -> None:
        self._left, self._number, self._began = dict(work), len(work), monotonic()
        self._total = math.fsum(work.values())

    def after(self, name: str) -> str:
        """Return such as `3 of 7, about 12 min left`, once a piece is done; at the pace since the start."""
        self._left.pop(name, None)
        left = math.fsum(self._left.values())
        place = f"{self._number - len(self._left)} of {self._number}"
        if not self._left or self._total <= left:
            return place
        seconds = (monotonic() - self._began) * left / (self._total - left)
        unit, size = next((unit for unit in UNITS if seconds >= unit[1]), UNITS[-1])
        return f"{place}, about {math.ceil(seconds / size)} {unit} left"


@contextmanager
def counting(unit: str) -> Iterator[Callable[[int, int], None]]:
    """Show a progress bar for the duration of the block; yield its callback of (done, total)."""
    with Bar(unit=f" {unit}") as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield show


@contextmanager
def timed(title: str) -> Iterator[None]:
    """Print how long the block took: `Ray started in 4.2 s`."""
    start = monotonic()
    yield
    say(f"{title} in {monotonic() - start:.1f} s")


@contextmanager
def follow(stage: "Stage", title: str, steps: int, scores: Callable[[], str] = str) -> Iterator[None]:
    """Show steps, loss, samples/s and time left of a training stage, read from its metrics log while the block runs.

    scores: returns the text of the latest evaluations, such as `knn 97.78`.
    """
    bar = Bar(total=steps, desc=title, bar_format=LINE)
    stop = threading.Event()
    updater = threading.Thread(target=_update, args=(stage, bar, stop, scores), daemon=True)
    updater.start()
    try:
        yield
    finally:
        stop.set()
        updater.join()
        bar.close()


def _update(stage: "Stage", bar: Bar, stop: threading.Event, scores: Callable[[], str]) -> None:
    stopped = False
    while not stopped:
        stopped = stop.wait(0.5)
        record = tail(stage.spool)
        if record is None or record.step == bar.n:
            continue
        if bar.n == 0:  # the clock starts at the first step of this attempt
            bar.initial, bar.start_t = record.step, time()
        rate, loss = record.values.get("samples_per_second", 0.0), record.values.get("loss", 0.0)
        parts = f"loss {loss:.3f}", f"{rate:,.0f} samples/s", scores()
        bar.set_postfix_str(", ".join(filter(None, parts)), refresh=False)
        bar.update(record.step - bar.n)

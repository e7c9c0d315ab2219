"""A thread that sends metrics logs to MLflow while stages run."""

import logging
import math
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from selfsup.track import Tracker

MAX_DELAY = 30.0  # seconds between attempts while a server is away
logger = logging.getLogger(__name__)


class Shipper(threading.Thread):
    """Sends metrics logs while they grow. Errors of MLflow are logged, and sending is tried again later."""

    def __init__(self, tracker: Tracker, *, every: float = 1.0) -> None:
        super().__init__(name="selfsup-shipper", daemon=True)
        self._tracker = tracker
        self._every = every
        self._logs: dict[Path, tuple[str, Sequence[str]]] = {}  # path -> (run, prefixes)
        self._closing = threading.Event()
        self._deadline = math.inf
        self._sent_all = True

    def add(self, run_id: str, path: Path, *, prefixes: Sequence[str] = ("",)) -> None:
        """Start sending a log, which need not exist yet, under names with each of the prefixes."""
        self._logs[path] = run_id, prefixes

    def run(self) -> None:
        delay = self._every
        while not self._closing.wait(delay):
            delay = self._every if self._send() else min(2 * delay, MAX_DELAY)
        while not self._send() and time.monotonic() < self._deadline:
            time.sleep(self._every)

    def close(self, timeout: float) -> bool:
        """Send the rest for at most `timeout` seconds; return whether all committed records have reached MLflow."""
        self._deadline = time.monotonic() + timeout
        self._closing.set()
        self.join(timeout)
        return self._sent_all and not self.is_alive()

    def _send(self) -> bool:
        """Send new records of all logs; return whether that succeeded."""
        before, sent_all = self._sent_all, True
        for path, (run_id, prefixes) in list(self._logs.items()):
            try:
                self._tracker.ship(run_id, path, prefixes=prefixes)
            except Exception as error:  # training goes on without MLflow; the log keeps the metrics
                sent_all = False
                logger.log(logging.WARNING if before else logging.DEBUG, "%s; trying again", error)
        self._sent_all = sent_all
        return sent_all

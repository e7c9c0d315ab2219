"""Numbers on their way to MLflow while a stage runs."""

import logging
import math
import threading
import time
from pathlib import Path

from selfsup.track import Tracker

SLOWEST = 30.0  # seconds between attempts at most, while a server is away
log = logging.getLogger(__name__)


class Shipper(threading.Thread):
    """Sends spools while they grow. Whatever MLflow does, it only logs a warning and tries again later."""

    def __init__(self, tracker: Tracker, *, every: float = 1.0) -> None:
        super().__init__(name="selfsup-shipper", daemon=True)
        self._tracker = tracker
        self._every = every
        self._spools: dict[Path, tuple[str, str]] = {}
        self._closing = threading.Event()
        self._deadline = math.inf
        self._sent_all = True

    def add(self, run_id: str, path: Path, *, prefix: str = "") -> None:
        """Send this spool from now on; it need not exist yet."""
        self._spools[path] = run_id, prefix

    def run(self) -> None:
        delay = self._every
        while not self._closing.wait(delay):
            delay = self._every if self._round() else min(2 * delay, SLOWEST)
        while not self._round() and time.monotonic() < self._deadline:
            time.sleep(self._every)

    def close(self, timeout: float) -> bool:
        """Send what is left, for at most `timeout` seconds; say whether everything committed has reached MLflow."""
        self._deadline = time.monotonic() + timeout
        self._closing.set()
        self.join(timeout)
        return self._sent_all and not self.is_alive()

    def _round(self) -> bool:
        before, sent_all = self._sent_all, True
        for path, (run_id, prefix) in list(self._spools.items()):
            try:
                self._tracker.ship(run_id, path, prefix=prefix)
            except Exception as error:  # training goes on without MLflow; the spool keeps the numbers
                sent_all = False
                log.log(logging.WARNING if before else logging.DEBUG, "%s; trying again", error)
        self._sent_all = sent_all
        return sent_all

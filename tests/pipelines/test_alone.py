"""Workers that a lost head left to train are waited for, as long as Ray may let them live."""

import fcntl
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

import pytest

from selfsup.pipelines.cluster.watchdog import GCS_TIMEOUT
from selfsup.pipelines.stages import alone as module
from selfsup.pipelines.stages.alone import LOCK, alone


@pytest.fixture
def left(tmp_path: Path) -> Iterator[IO[str]]:
    """The lock of a worker that trains in the folder, until it is closed."""
    with (tmp_path / LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield lock


def ranks(*given: int) -> tuple[int, ...]:
    return given


def test_a_training_begins_once_those_before_it_have_ended(tmp_path: Path, left: IO[str]) -> None:
    with ThreadPoolExecutor(1) as pool:
        training = pool.submit(alone, ranks, tmp_path, 0, 1)
        with pytest.raises(TimeoutError):
            training.result(1.2)
        left.close()
        assert training.result(10) == (0, 1)


def test_others_wait_for_it(tmp_path: Path) -> None:
    def tried(*_: int) -> None:
        with (tmp_path / LOCK).open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)

    with pytest.raises(BlockingIOError):
        alone(tried, tmp_path, 0, 1)
    tried()


def test_a_lock_that_outlives_its_machine_is_passed_over(
    tmp_path: Path, left: IO[str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(GCS_TIMEOUT, "1")
    monkeypatch.setattr(module, "ENDING", 0.5)
    since = time.monotonic()
    assert alone(ranks, tmp_path, 0, 1) == (0, 1)
    assert time.monotonic() - since > 1.5
    assert "training goes on without it" in caplog.text
    assert not left.closed

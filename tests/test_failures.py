import errno

import pytest

from selfsup.errors import CheckpointError, DataError, ExhaustedError, NonFiniteError, PreemptedError, SelfsupError
from selfsup.failures import Failure, classify, collapsed, disk_error, diverged


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (DataError("a shard is missing"), "user error"),
        (CheckpointError("of another spec"), "user error"),
        (NonFiniteError("step 3: loss is nan"), "non-finite"),
        (ExhaustedError("no memory left"), "out of memory"),
        (PreemptedError("the machines were taken away"), "preempted"),
        (SelfsupError("training failed after 3 restarts"), "infrastructure"),
        (OSError("a disk is lost"), "infrastructure"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_every_failure_has_a_kind_and_comes_back_as_what_it_was(error: Exception, kind: str) -> None:
    failure = classify(error)
    assert failure == Failure(kind, type(error).__name__, str(error))
    assert failure.reason == f"{kind}: {error}"
    assert type(failure.exception()) is (type(error) if isinstance(error, SelfsupError) else SelfsupError)


def test_what_a_setting_does_to_its_seed_is_an_outcome_and_what_machines_do_is_not() -> None:
    assert diverged(classify(NonFiniteError("step 3: loss is nan")).reason)
    assert diverged(collapsed({"pretrain/feature_std": 0.001, "step": 9}))
    assert diverged(collapsed({"pretrain/loss": 2.0, "pretrain/chance": 2.001, "step": 9}))
    others = (ExhaustedError("no memory"), PreemptedError("away"), OSError("lost"), DataError("a shard is missing"))
    assert not any(diverged(classify(error).reason) for error in others)
    assert not diverged("")


def test_an_error_of_a_disk_says_what_to_do_and_that_it_goes_on() -> None:
    full = OSError(errno.ENOSPC, "No space left on device", "/data/home/runs")
    line = "/data/home/runs: No space left on device; make room, and the same command continues"
    assert str(disk_error(full)) == line
    assert classify(full) == Failure("infrastructure", "OSError", line)
    assert str(disk_error(OSError(errno.EROFS, "..."))).startswith("Read-only file system; make it writable")
    assert disk_error(FileNotFoundError(errno.ENOENT, "...", "/nowhere")) is None  # which may be our mistake
    assert disk_error(ValueError("7")) is None


def test_a_message_of_ray_loses_its_colors() -> None:
    error = RuntimeError("\x1b[36mray::train()\x1b[39m (pid=7)\nValueError: \x1b[1;31mno\x1b[0m")
    assert classify(error).message == "ray::train() (pid=7)\nValueError: no"

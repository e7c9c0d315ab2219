"""Why a run failed: kinds that each have their remedy, told apart by what was raised."""

import errno
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from selfsup import errors, whole
from selfsup.errors import SelfsupError
from selfsup.redact import redacted

Kind = Literal["user error", "non-finite", "out of memory", "preempted", "infrastructure"]
HINT = "\nFailed to apply UDF transform"  # what Ray Data appends to an error of a data task begins with
DISK = {  # what the user can do about it
    errno.ENOSPC: "make room",
    errno.EDQUOT: "make room",
    errno.EROFS: "make it writable",
    errno.EACCES: "allow it to this user",
    errno.EPERM: "allow it to this user",
    errno.EIO: "mend the disk",
    errno.ESTALE: "mount it anew",
    errno.EMFILE: "raise the limit, as by `ulimit -n 65536`",
    errno.ENFILE: "raise the limit of the system",
}
COLLAPSE = {"feature std": ("pretrain/feature_std", 0.05), "RankMe": ("pretrain/rankme", 2.0)}  # suspected below
OWN = ("non-finite:", "collapsed:", "learns nothing:")  # beginnings of reasons that are outcomes of a setting
CHANCE = 0.01  # of the loss of guessing: how near to it a loss is at it
ENOUGH = 3  # runs that fail alike before a sweep stops: the rest would too


class Failure(NamedTuple):
    """kind: what was preempted is tried again from its last checkpoint without limit, infrastructure some times; the
    others would only repeat themselves.

    error: the name of a class in selfsup.errors. message: for the user.
    """

    kind: Kind
    error: str
    message: str

    @property
    def reason(self) -> str:
        """One line, for a table."""
        return f"{self.kind}: {self.message.partition(chr(10))[0]}"

    def exception(self) -> SelfsupError:
        found = getattr(errors, self.error, None)
        return found(self.message) if isinstance(found, type) else SelfsupError(self.message)


def of_disk(error: BaseException) -> SelfsupError | None:
    """An error of a disk in a line that says what to do; None for any other, which may be a mistake of ours."""
    if not isinstance(error, OSError) or error.errno not in DISK:
        return None
    place = f"{error.filename}: " if error.filename else ""
    return SelfsupError(f"{place}{os.strerror(error.errno)}; {DISK[error.errno]}, and the same command continues")


def classify(error: BaseException) -> Failure:
    """What Ray wraps an error in is taken off."""
    cause = getattr(error, "cause", None) or error
    message = redacted(str(of_disk(cause) or cause).partition(HINT)[0])
    if isinstance(cause, errors.NonFiniteError):
        kind: Kind = "non-finite"
    elif isinstance(cause, errors.ExhaustedError):
        kind = "out of memory"
    elif isinstance(cause, errors.PreemptedError):
        kind = "preempted"
    elif isinstance(cause, SelfsupError) and cause.exit_code > 1:
        kind = "user error"
    else:
        kind = "infrastructure"
        message = message or type(cause).__name__
    return Failure(kind, type(cause).__name__, message)


def collapsed(report: Mapping[str, float]) -> str:
    """Why embeddings with these numbers are all but the same for every image; "" where they are not. Needs no label.

    A contrastive method records `chance`, the loss of embeddings that are all the same: ln K of K candidates.
    """
    at = f"at step {report.get('step', 0):.0f}"
    for title, (name, limit) in COLLAPSE.items():
        if (value := report.get(name, limit)) < limit:
            return f"collapsed: {title} {value:.3g} < {limit:g} {at}"
    loss, chance = report.get("pretrain/loss", 0.0), report.get("pretrain/chance", math.inf)
    return f"learns nothing: loss {loss:.3g}, {chance:.3g} by chance, {at}" if abs(loss / chance - 1) < CHANCE else ""


def diverged(reason: str) -> bool:
    """Whether a run ended for what its setting made of its seed: a result, though without a number."""
    return reason.startswith(OWN)


def write(failure: Failure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    whole.write(path, json.dumps(failure._asdict(), indent=1) + "\n")


def read(path: Path) -> Failure | None:
    """None where there is none, or only half of one."""
    try:
        told: dict[str, Any] = json.loads(path.read_text())
        sound = told["kind"] in get_args(Kind) and all(isinstance(value, str) for value in told.values())
        return Failure(**told) if sound else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None

"""Classification of failed runs by their exception, into kinds with a remedy each."""

import errno
import json
import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from selfsup import errors, whole
from selfsup.errors import SelfsupError
from selfsup.redact import redacted

Kind = Literal["user error", "non-finite", "out of memory", "preempted", "infrastructure"]
RAY_DATA_HINT = "\nFailed to apply UDF transform"  # start of the text that Ray Data appends to an error
DISK_REMEDIES = {
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
COLLAPSE = {"feature std": ("pretrain/feature_std", 0.05), "RankMe": ("pretrain/rankme", 2.0)}  # collapse below these
OUTCOMES = ("non-finite:", "collapsed:", "learns nothing:")  # prefixes of reasons that are results of a setting
CHANCE_TOLERANCE = 0.01  # relative distance to the loss of guessing that counts as chance
MAX_ALIKE = 3  # runs that fail alike before a sweep stops


class Failure(NamedTuple):
    """The failure of a run.

    kind: "preempted" is retried from the last checkpoint without limit, "infrastructure" a few times; the others would
    only repeat. error: the name of a class in selfsup.errors. message: for the user.
    """

    kind: Kind
    error: str
    message: str

    @property
    def reason(self) -> str:
        """Return kind and first line of the message, for a table."""
        return f"{self.kind}: {self.message.partition(chr(10))[0]}"

    def exception(self) -> SelfsupError:
        cls = getattr(errors, self.error, None)
        return cls(self.message) if isinstance(cls, type) else SelfsupError(self.message)


def disk_error(error: BaseException) -> SelfsupError | None:
    """Return a disk's error as one line with a remedy; None for any other error, which may be a bug."""
    if not isinstance(error, OSError) or error.errno not in DISK_REMEDIES:
        return None
    place, remedy = f"{error.filename}: " if error.filename else "", DISK_REMEDIES[error.errno]
    return SelfsupError(f"{place}{os.strerror(error.errno)}; {remedy}, and the same command continues")


def classify(error: BaseException) -> Failure:
    """Return the failure of an exception, or of its cause where Ray wraps it."""
    cause = getattr(error, "cause", None) or error
    message = redacted(plain(str(disk_error(cause) or cause)).partition(RAY_DATA_HINT)[0])
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


def plain(text: str) -> str:
    """Return a text without the colors of a terminal, with which Ray writes its errors."""
    return re.sub(r"\x1b\[[\d;]*m", "", text)


def collapsed(report: Mapping[str, float]) -> str:
    """Return a reason where metrics, which need no labels, indicate a collapse of the embeddings, else "".

    A contrastive method records `chance`, the loss of identical embeddings: ln K for K candidates.
    """
    step = f"at step {report.get('step', 0):.0f}"
    for title, (name, limit) in COLLAPSE.items():
        if (value := report.get(name, limit)) < limit:
            return f"collapsed: {title} {value:.3g} < {limit:g} {step}"
    loss, chance = report.get("pretrain/loss", 0.0), report.get("pretrain/chance", math.inf)
    is_chance = abs(loss / chance - 1) < CHANCE_TOLERANCE
    return f"learns nothing: loss {loss:.3g}, {chance:.3g} by chance, {step}" if is_chance else ""


def diverged(reason: str) -> bool:
    """Return whether a run failed because of its settings and seed: a result, though without a number."""
    return reason.startswith(OUTCOMES)


def write(failure: Failure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    whole.write(path, json.dumps(failure._asdict(), indent=1) + "\n")


def read(path: Path) -> Failure | None:
    """Read a failure; None where the file is missing or damaged."""
    try:
        content: dict[str, Any] = json.loads(path.read_text())
        is_valid = content["kind"] in get_args(Kind) and all(isinstance(value, str) for value in content.values())
        return Failure(**content) if is_valid else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None

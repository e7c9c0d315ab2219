"""The errors that a user meets. The command prints `selfsup: error[CODE]: MESSAGE`, no traceback, and exits.

SelfsupError          failed          1  anything else, such as a full disk or a cluster that refuses
├── NonFiniteError    non-finite      1  the loss or the gradient is no longer a number
├── ExhaustedError    out-of-memory   1  a worker's device has no memory left
├── PreemptedError    preempted       1  the machines of a run were taken away
├── SpecError         spec            2  the spec or an override is wrong
│   └── CodeError     other-code      2  other code made what is there: the user has to say whether it counts
├── DataError         data            3  shards, manifests or samples are wrong
├── CheckpointError   checkpoint      4  a checkpoint belongs to another spec, or cannot be written or read
└── TrackError        tracking        5  the tracking store cannot be reached

Codes and exit codes stay as they are from version to version; messages may be reworded.
"""

from selfsup.redact import redacted


class SelfsupError(Exception):
    """A mistake outside this code: where it is, what was expected, what to do. It repeats no secret of a URL.

    code: for programs, as exit_code is for shells.

    paths: settings that could be at fault, the likeliest first; `layers.located` says where they are written.
    """

    code, exit_code = "failed", 1

    def __init__(self, message: object = "", *paths: str) -> None:
        self.bare, self.paths = redacted(str(message)), paths
        super().__init__(": ".join([*paths[:1], self.bare]))


class NonFiniteError(SelfsupError):
    code = "non-finite"


class ExhaustedError(SelfsupError):
    code = "out-of-memory"


class PreemptedError(SelfsupError):
    code = "preempted"


class SpecError(SelfsupError):
    code, exit_code = "spec", 2


class CodeError(SpecError):
    code = "other-code"


class DataError(SelfsupError):
    code, exit_code = "data", 3


class CheckpointError(SelfsupError):
    code, exit_code = "checkpoint", 4


class TrackError(SelfsupError):
    code, exit_code = "tracking", 5

"""Everything selfsup tells a user went wrong.

SelfsupError          the command line prints its message, without a traceback, and exits with `exit_code`
├── NonFiniteError    the loss or the gradient is no longer a number (1)
├── ExhaustedError    a worker's device has no memory left (1)
├── PreemptedError    the machines of a run were taken away (1)
├── SpecError         the spec or an override is wrong (2)
│   └── CodeError     other code made what is there: the user has to say whether it counts
├── DataError         shards, manifests or images are wrong (3)
├── CheckpointError   a checkpoint belongs to another spec, or cannot be written or read (4)
└── TrackError        the tracking store cannot be reached (5)
"""

from selfsup.redact import redacted


class SelfsupError(Exception):
    """A mistake outside this code: where it is, what was expected, what to do. It repeats no secret of a URL.

    paths: settings that could be at fault, the likeliest first; `layers.located` says where they are written.
    """

    exit_code = 1

    def __init__(self, message: object = "", *paths: str) -> None:
        self.bare, self.paths = redacted(str(message)), paths
        super().__init__(": ".join([*paths[:1], self.bare]))


class NonFiniteError(SelfsupError):
    pass


class ExhaustedError(SelfsupError):
    pass


class PreemptedError(SelfsupError):
    pass


class SpecError(SelfsupError):
    exit_code = 2


class CodeError(SpecError):
    pass


class DataError(SelfsupError):
    exit_code = 3


class CheckpointError(SelfsupError):
    exit_code = 4


class TrackError(SelfsupError):
    exit_code = 5

"""The section `resources` of a spec: the machines that a run asks for, which change none of its results."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, WithJsonSchema

from selfsup.bounded import USUAL
from selfsup.knob import Knobs, knob

MOST = 2**16  # processes, CPUs, GPUs: more than any cluster has
_NUMBER = {"type": "integer", "minimum": 1, "maximum": MOST}


def _workers(value: object) -> object:
    match value:
        case {"min": low, "max": high, **others} if not others:
            ends = [low, high]
        case _:
            ends = [value]
    if not all(type(end) is int and 1 <= end <= MOST for end in ends) or ends != sorted(ends):
        raise ValueError(f"expected how many workers (1 to {MOST}), or a range, such as {{min: 2, max: 8}}")
    return value


Workers = Annotated[
    int | dict[str, int],
    BeforeValidator(_workers),
    WithJsonSchema(
        {
            "oneOf": [
                _NUMBER,
                {
                    "type": "object",
                    "properties": {"min": _NUMBER, "max": _NUMBER},
                    "required": ["min", "max"],
                    "additionalProperties": False,
                },
            ]
        }
    ),
]


class Resources(Knobs):
    workers: Workers = knob(
        1, "training processes; {min: 2, max: 8}: as many of these as there is room for", result=False
    )
    cpus_per_worker: float = knob(
        1.0,
        "CPUs for each; as many threads of torch, rounded up, on whose number last digits depend",
        result=False,
        ge=0,
        le=MOST,
    )
    gpus_per_worker: float = knob(0.0, "GPUs for each", result=False, ge=0, le=MOST)
    data_cpus: float = knob(1.0, "CPUs that read and decode, for all workers together", result=False, gt=0, le=MOST)
    data_memory: int = knob(1024, "MiB for the steps that a worker prepares ahead", result=False, ge=1, le=2**30)
    eval_memory: int = knob(
        USUAL,
        "MiB of the largest array that an evaluation makes of features at once, of which it may hold three or four; "
        "last digits depend on it",
        result=False,
        ge=1,
        le=2**30,
    )
    max_failures: int = knob(
        3, "times that a run restarts from its checkpoint before it fails", result=False, ge=0, le=MOST
    )
    storage_patience: float = knob(600.0, "seconds to wait for object storage that fails", result=False, ge=0, le=MOST)
    slots: Literal["warm", "fresh"] = knob(
        "warm", "workers take one run of a sweep after another, or end with each", result=False
    )

    def counts(self, lanes: int) -> tuple[int, ...]:
        """Return the numbers of workers that a run of so many lanes may have, ascending: of a range, its divisors.

        The range's minimum alone where none divides them.
        """
        if isinstance(self.workers, int):
            return (self.workers,)
        low, high = self.workers["min"], self.workers["max"]
        return tuple(number for number in range(low, min(high, lanes) + 1) if lanes % number == 0) or (low,)

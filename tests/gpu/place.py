"""What all parts of the check do: objectives put on a device, and rows that hold what went wrong."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor

from selfsup.batch import Batch
from selfsup.masks import BoolMask
from selfsup.method import Method

Row = dict[str, Any]  # of a table, and JSON-able


class Setup(NamedTuple):
    """A device, and whether sizes are the smallest, which take seconds on a CPU."""

    device: str
    tiny: bool = False


def changed(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Return tuples, however nested, with every tensor changed; counts of masks stay, which the host keeps."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, BoolMask):
        return value._replace(where=change(value.where))
    if not isinstance(value, tuple):
        return value
    parts = [changed(part, change) for part in value]
    return tuple(parts) if type(value) is tuple else type(value)(*parts)


def placed(method: Method, batch: Batch, device: str) -> tuple[Method, Batch]:
    """Return an objective and a batch on a device; the objective is moved in place."""
    return method.to(device), changed(batch, lambda value: value.to(device))


def attempt(titles: Row, measure: Callable[[], Row]) -> Row:
    """Return a row of these titles and of what is measured, or of the error, and the seconds that it took."""
    began = time.perf_counter()
    try:
        row = measure()
    except Exception as error:
        row = {"ok": False, "error": f"{type(error).__name__}: {' '.join(str(error).split())[:500]}"}
    return titles | row | {"seconds": round(time.perf_counter() - began, 2)}

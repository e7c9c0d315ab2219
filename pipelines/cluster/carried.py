"""Files that the work of a stage reads and makes in processes of other nodes, which share nothing but object storage.

A home in a folder that all nodes see needs none of it.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from selfsup.homes import fetch, mirror_of
from selfsup.mirror_index import inputs

Result = TypeVar("Result")


class Carriage(NamedTuple):
    """The folders that work reads, and the one that it makes. node: the name of the copy of the home that has them."""

    reads: tuple[Path, ...]
    made: Path
    node: str


_current: ContextVar[Carriage | None] = ContextVar("carriage", default=None)


def is_carrying() -> bool:
    """Return whether the work of this thread has files that other nodes may lack."""
    return _current.get() is not None


@contextmanager
def carrying(reads: Sequence[Path], made: Path) -> Iterator[None]:
    """Inside the block, let work of this thread in other processes have files, and bring back what it makes."""
    mirror = mirror_of(made)
    before = _current.set(Carriage((*reads,), made, mirror.node) if mirror else None)
    try:
        yield
    finally:
        _current.reset(before)


def carried(function: Callable[..., Result]) -> Callable[..., Result]:
    """Return a function of another process that fetches what it needs, and publishes what it has made."""
    carriage = _current.get()
    return partial(_call, carriage, function) if carriage else function


def collect() -> None:
    """Fetch what other nodes have made."""
    if carriage := _current.get():
        fetch([carriage.made], inputs)


def _call(carriage: Carriage, function: Callable[..., Result], *args: Any) -> Result:
    mirror = mirror_of(carriage.made)
    assert mirror
    if mirror.node == carriage.node:
        return function(*args)
    carriage.made.mkdir(parents=True, exist_ok=True)
    fetch(carriage.reads, inputs)
    fetch([carriage.made], inputs)
    value = function(*args)
    mirror.publish(carriage.made, parts=True)
    return value

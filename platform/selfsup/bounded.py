"""The bound of what evaluations hold at once of all that they make of features: so many samples at a time."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

USUAL = 256  # MiB
_bound = ContextVar("bound", default=float(USUAL))


@contextmanager
def bounded(mib: float) -> Iterator[None]:
    """Have evaluations hold so many MiB at once inside the block.

    Parts of another size change last digits, and by these alone the ranks of what is equally similar.
    """
    outside = _bound.set(mib)
    try:
        yield
    finally:
        _bound.reset(outside)


def at_once(usual: int, width: int) -> int:
    """Return how many samples of `width` numbers are held at once, 1 at least. usual: numbers, by the usual bound."""
    return max(1, int(usual * _bound.get() / USUAL) // width)

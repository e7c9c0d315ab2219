"""Settings as dotted paths, and what differs between two of them."""

from collections.abc import Iterator, Mapping
from typing import Any


def differences(here: Mapping[str, Any], there: Mapping[str, Any]) -> list[str]:
    """Return a line for every path whose values differ: `optim.lr: 0.1 here, 0.2 there`."""
    ours, theirs = dict(flatten(here)), dict(flatten(there))
    return [
        f"{path}: {ours.get(path, 'absent')} here, {theirs.get(path, 'absent')} there"
        for path in sorted(ours.keys() | theirs.keys())
        if ours.get(path, _ABSENT) != theirs.get(path, _ABSENT)
    ]


_ABSENT = object()  # unlike None, not the value of any setting


def flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (dotted path, value) of nested settings."""
    for name, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value

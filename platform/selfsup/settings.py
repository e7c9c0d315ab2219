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


def changed(here: Mapping[str, Any], there: Mapping[str, Any]) -> list[str]:
    """Return the `differences` of settings of one key: a knob that one of them has not is new, or was removed.

    Its value is the default then, since it would be part of the key, and what it changes is told by the code.
    """
    ours, theirs = dict(flatten(here)), dict(flatten(there))
    both = ours.keys() & theirs.keys()
    return differences(*({path: knobs[path] for path in both} for knobs in (ours, theirs)))


_ABSENT = object()  # unlike None, not the value of any setting


def flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (dotted path, value) of nested settings."""
    for name, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value

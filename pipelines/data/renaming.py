"""Class maps: JSON files that say what the classes of one data set are called in another.

{"tabby cat": "n02123045", "n02123159": null}    # null: no class of the other; names left out stay as they are
"""

import json
from pathlib import Path
from typing import Any

from selfsup.errors import DataError
from selfsup.explain import did_you_mean
from selfsup.pipelines.data.manifest import Manifest


def renamed(data: Manifest, path: str) -> Manifest:
    """Return a data set whose classes are called as a map in a file says. Raises DataError for what is no such map."""
    names = json_of(path, "the class map")
    if not isinstance(names, dict) or not all(name is None or isinstance(name, str) for name in names.values()):
        raise DataError(f'{path}: expected a mapping of names, such as {{"tabby cat": "n02123045", "other": null}}')
    if unknown := [name for name in names if name not in data.classes]:
        hint = did_you_mean(unknown[0], data.classes) or f"it has {', '.join(data.classes[:5])} ..."
        raise DataError(f"{path}: {data.root} has no class {unknown[0]!r} ({hint})")
    return data.called(tuple(names.get(name, name) or "" for name in data.classes))


def json_of(path: str, content: str) -> Any:
    """Return what a JSON file of the user's says. content: what it is, in the DataError for one that cannot be read."""
    try:
        return json.loads(Path(path).read_bytes())
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise DataError(f"{path}: cannot read {content}: {reason}") from error

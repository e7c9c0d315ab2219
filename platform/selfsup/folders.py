"""Folders that the environment names: of results, and of what a node keeps for a while."""

import os
import tempfile
from pathlib import Path

from selfsup.errors import SpecError
from selfsup.redact import redacted


def folder_from_environment(variable: str, *, default: str) -> Path:
    """Return the folder that a variable names; it need not exist yet.

    Raises SpecError where it cannot be made, and for a URL, which would become a local folder of that name.
    """
    value = os.environ.get(variable) or default
    if "://" in value:
        raise SpecError(f"{variable}: {redacted(value)}: expected a folder")
    try:
        path = Path(value).expanduser().resolve()
    except RuntimeError as error:  # no such user, or a loop of links
        raise SpecError(f"{variable}: {value}: {error}; expected a folder") from error
    existing = next(parent for parent in (path, *path.parents) if parent.exists())
    if not existing.is_dir():
        raise SpecError(f"{variable}: {value}: {existing} is a file; expected a folder")
    return path


def node_cache_folder() -> Path:
    """Return the cache folder of this node. Raises SpecError where SELFSUP_CACHE is not a folder."""
    return folder_from_environment("SELFSUP_CACHE", default=f"{tempfile.gettempdir()}/selfsup-cache-{os.getuid()}")

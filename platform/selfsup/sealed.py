"""Folders with a digest of each file, so that a flipped bit, a truncated or a missing file is found before its use."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from selfsup.whole import whole

DIGESTS = "_digests.json"  # file -> digest of its bytes; readers of Parquet ignore the name


@contextmanager
def sealed(path: Path) -> Iterator[Path]:
    """Yield a new folder to fill; at the end of the block, add digests and replace `path` by it."""
    with whole(path) as part:
        part.mkdir()
        yield part
        digests = {str(file.relative_to(part)): digest(file) for file in part.rglob("*") if file.is_file()}
        (part / DIGESTS).write_text(json.dumps(digests, indent=1))


def damage(folder: Path) -> str:
    """Return how a sealed folder differs from what was written, "" where it does not."""
    try:
        digests = json.loads((folder / DIGESTS).read_bytes())
        for name in sorted(_visible_files(folder) | digests.keys()):
            if not (folder / name).is_file():
                return f"incomplete: {name} is missing"
            if digest(folder / name) != digests.get(name):
                return f"{name} is not as it was written"
    except (OSError, ValueError, AttributeError, TypeError, RecursionError) as error:
        return f"incomplete: {error}"
    return ""


def _visible_files(folder: Path) -> set[str]:
    """Return the files of a folder, without those that readers of Parquet ignore."""
    files = (file for file in folder.rglob("[!._]*") if file.is_file())
    return {str(file.relative_to(folder)) for file in files}


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()

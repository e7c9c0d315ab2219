"""Folders that say what is in them, so that a flipped bit or a file that was cut or lost is found before it is used."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from selfsup.whole import whole

DIGESTS = "_digests.json"  # file -> digest of its bytes; readers of Parquet pass over such a name


@contextmanager
def sealed(path: Path) -> Iterator[Path]:
    """Give the block a new folder to fill, then put that in the place of `path` with a digest of each of its files."""
    with whole(path) as part:
        part.mkdir()
        yield part
        digests = {str(file.relative_to(part)): digest(file) for file in part.rglob("*") if file.is_file()}
        (part / DIGESTS).write_text(json.dumps(digests, indent=1))


def damage(folder: Path) -> str:
    """What of a sealed folder is not as it was written, in a few words; "" where all of it is."""
    try:
        digests = json.loads((folder / DIGESTS).read_bytes())
        for name in sorted(_visible(folder) | digests.keys()):
            if not (folder / name).is_file():
                return f"not whole: {name} is missing"
            if digest(folder / name) != digests.get(name):
                return f"{name} is not as it was written"
    except (OSError, ValueError, AttributeError, TypeError, RecursionError) as error:
        return f"not whole: {error}"
    return ""


def _visible(folder: Path) -> set[str]:
    """Files of it, without those that readers of Parquet pass over."""
    files = (file for file in folder.rglob("[!._]*") if file.is_file())
    return {str(file.relative_to(folder)) for file in files}


def digest(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, lambda: hashlib.blake2b(digest_size=16)).hexdigest()

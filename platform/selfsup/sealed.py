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
        for name, written in digests.items():
            if digest(folder / name) != written:
                return f"{name} is not as it was written"
    except (OSError, ValueError, AttributeError) as error:
        return f"not whole: {error}"
    return ""


def digest(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, lambda: hashlib.blake2b(digest_size=16)).hexdigest()

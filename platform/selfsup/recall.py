"""Answers that only a question and the code determine, kept under SELFSUP_HOME so that nobody waits for them twice.

Each is a file of JSON, packed by gzip, in `cache/answers`, named after the digest of its question and of the code; any
of them may be removed at any time. Another version of selfsup, torch or timm finds none of them.
"""

import gzip
import hashlib
import json
import os
import sys
import zlib
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

from selfsup import whole
from selfsup.stage import digest

MOST = 500  # answers that are kept: those asked for last
PACKAGES = "selfsup", "selfsup.methods", "selfsup.pipelines", "selfsup.sweeps"
Answer = TypeVar("Answer")
_homes: list[Callable[[], Path]] = []  # of the command that this process runs, if it does
OTHERS = (
    "matplotlib",
    "numpy",
    "pydantic",
    "timm",
    "torch",
    "torchvision",
    "transformers",
)  # code of others that answers depend on


def recall(
    home: Path, question: Any, answer: Callable[[], Any], *, holds: Callable[[Any], bool] = lambda _: True
) -> Any:
    """Return the answer to a question, both as JSON data: from its file, or else worked out and kept.

    holds: whether one from a file is still true of what neither question nor code say. Where no file can be written,
    the answer is worked out each time.
    """
    folder = home / "cache" / "answers"
    path = folder / f"{digest([question, code_digest()], size=12)}.json.gz"
    with suppress(OSError, ValueError, EOFError, zlib.error):
        kept = json.loads(gzip.decompress(path.read_bytes()))
        if holds(kept):
            _touch(path)
            return kept
    text = json.dumps(answer())
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        whole.sweep(folder)
        whole.write(path, gzip.compress(text.encode(), 1))
        for old in sorted(folder.glob("*.json.gz"), key=lambda file: file.stat().st_mtime)[:-MOST]:
            whole.remove(old)
    return json.loads(text)


def keep_under(home: Callable[[], Path]) -> None:
    """Let this process, which runs a command, keep its answers to `once` under a home, and recall those of others."""
    _homes[:] = [home]


def once(question: Any, answer: Callable[[], Answer]) -> Answer:
    """Return the answer to a question, JSON data; in a process that runs a command it is recalled, and kept."""
    kept: Answer = recall(_homes[0](), question, answer) if _homes else answer()
    return kept


def _touch(path: Path) -> None:
    with suppress(OSError):
        os.utime(path)


@cache
def code_digest() -> str:
    """Return a digest of all files of this package, and of the versions of those that it is built on."""
    total = hashlib.blake2b(f"{sys.version} {[_version(name) for name in OTHERS]}".encode(), digest_size=16)
    for path in sorted({path for package in PACKAGES for path in _files(package)}):
        content = Path(path).read_bytes()
        total.update(f"{path} {len(content)} ".encode(errors="surrogateescape") + content)
    return total.hexdigest()


def _files(package: str) -> list[str]:
    spec = find_spec(package)
    assert spec
    assert spec.submodule_search_locations
    walks = (walk for folder in spec.submodule_search_locations for walk in os.walk(folder))
    return [
        os.path.join(folder, name)  # noqa: PTH118 (a tenth of a Path's time)
        for folder, _, names in walks
        if not folder.endswith("__pycache__")
        for name in names
    ]


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""

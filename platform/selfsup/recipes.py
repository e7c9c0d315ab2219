"""The table of shipped specs and sweeps: what each trains, on which data, and the published number that it aims at."""

from pathlib import Path
from typing import Any

from selfsup.layers import Layers, plain
from selfsup.published import Published
from selfsup.shipped import files

SHARED = "common"  # what the specs of a folder have in common; no recipe


def recipes() -> list[tuple[str, ...]]:
    """Return a heading and a row for each shipped spec: name, method, backbone, data, published numbers."""
    trees = {name: _tree(path) for name, path in files().items() if "/" in name and not name.endswith(f"/{SHARED}")}
    return [("recipe", "method", "backbone", "data", "published"), *(_row(name, tree) for name, tree in trees.items())]


def sweeps() -> list[tuple[str, ...]]:
    """Return a heading and a row for each shipped sweep: name, question."""
    names = [name for name in files() if "/" not in name]
    return [("sweep", "question"), *((name, _tree(files()[name])["question"]) for name in names)]


def _tree(path: Path) -> Any:
    return plain(Layers().read(path, ()))


def _row(name: str, tree: Any) -> tuple[str, ...]:
    published = str(Published(**numbers)) if (numbers := tree.get("published")) else ""
    return name, tree["method"], tree["backbone"]["name"], tree["data"]["train"], published

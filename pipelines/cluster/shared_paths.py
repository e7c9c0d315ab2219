"""A check that a cluster can see the data and weights of specs, before anything is sent."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from selfsup import outside
from selfsup.homes import mirror_of
from selfsup.mlflow_store import home
from selfsup.source import Node, Problem, refusal

PLACES = "a URL, such as s3://bucket/train, or the absolute path of a folder that all nodes share"


def check_visible(trees: Sequence[Node], shared: Sequence[Path]) -> None:
    """Raise SpecError with the place of each path in specs that the nodes of a cluster cannot be expected to see.

    Those are relative ones, and those of files and folders here that lie below neither SELFSUP_HOME, where it is set,
    nor one of `shared`. A path that does not exist here is taken for one of the cluster's.
    """
    folders = [path.expanduser().absolute() for path in shared]
    folders += [home()] if "SELFSUP_HOME" in os.environ and not mirror_of(home()) else []
    if problems := [problem for tree in trees for problem in _problems(tree, folders)]:
        raise refusal(problems)


def _problems(tree: Node, folders: Sequence[Path]) -> Iterator[Problem]:
    for where, node in outside.local_paths(tree):
        path = Path(str(node.value).removeprefix(outside.HUGGING_FACE))
        if not path.is_absolute():
            yield Problem(node.mark, where, f"{path}: the nodes of a cluster have no such relative path; give {PLACES}")
        elif path.exists() and not any(path.is_relative_to(folder) for folder in folders):
            message = f"{path} is on this machine; give {PLACES}"
            yield Problem(node.mark, where, message, f"if they do see it there: --shared {path.parent}")

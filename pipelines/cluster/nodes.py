"""Whether every node of a cluster sees one and the same folder, before hours are spent on results that nobody finds."""

import secrets
import time
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from selfsup.errors import SelfsupError
from selfsup.scratch import scratch

WORD = "word"
START = 120.0  # seconds for a node's first task, which may have a package to install
SETTLE = 10.0  # seconds in which a network file system shows what was written elsewhere


def check_shared(home: Path) -> None:
    """Raises SelfsupError that names each node on which `home` is another folder than here, or cannot be used."""
    word, nodes = secrets.token_hex(8), _others()
    with scratch(home, ".nodes-") as folder:
        (folder / WORD).write_text(word)
        asked = {name: _ask(node, folder / node, word) for name, node in nodes.items()}
        answers = {name: _answer(ref) or read(folder / nodes[name], word) for name, ref in asked.items()}
    if problems := [f"  {name}: {why}" for name, why in answers.items() if why]:
        raise SelfsupError(
            f"SELFSUP_HOME: not every node of the cluster sees {home} as this one does:\n"
            + "\n".join(problems)
            + "\nPut it on storage that all nodes share, under the same path on each"
        )


def answer(path: Path, word: str) -> str:
    """Write the word to `path` where it is found beside it; why not, or ""."""
    try:
        if why := read(path.parent / WORD, word):
            return why
        path.write_text(word)
    except OSError as error:
        return f"{error.filename}: {error.strerror}"
    return ""


def read(path: Path, word: str) -> str:
    """Why a file written elsewhere cannot be read here, or ""."""
    deadline = time.monotonic() + SETTLE
    while True:
        try:
            if path.read_text() == word:
                return ""
            why = f"{path}: not what was written there"
        except OSError as error:
            why = f"{path}: {error.strerror}"
        if time.monotonic() > deadline:
            return why
        time.sleep(0.1)


def _ask(node: str, path: Path, word: str) -> "ray.ObjectRef[str]":
    strategy = NodeAffinitySchedulingStrategy(node, soft=False)
    return ray.remote(answer).options(num_cpus=0, max_retries=0, scheduling_strategy=strategy).remote(path, word)


def _answer(ref: "ray.ObjectRef[str]") -> str:
    try:
        return ray.get(ref, timeout=START)
    except GetTimeoutError:
        return f"nothing ran there within {START:.0f} s"
    except RayError as error:
        return str(error).strip().rpartition("\n")[2]


def _others() -> dict[str, str]:
    """Nodes but this one, by name: their ids."""
    here = ray.get_runtime_context().get_node_id()
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    alive = [node for node in nodes if node["Alive"] and node["NodeID"] != here]
    return {f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})": node["NodeID"] for node in alive}

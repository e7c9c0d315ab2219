"""The nodes of a cluster: whether they share a folder, before hours are spent on what cannot be found; their room."""

import secrets
import time
from collections.abc import Mapping
from math import floor
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from selfsup.errors import SelfsupError
from selfsup.scratch import scratch

TOKEN_FILE = "token"
TASK_TIMEOUT = 120.0  # seconds for a node's first task, which may have a package to install
SYNC_TIMEOUT = 10.0  # seconds in which a network file system shows what another node wrote


def check_shared_folder(home: Path) -> None:
    """Raise SelfsupError that names each node on which `home` is another folder than here, or cannot be used."""
    token, nodes = secrets.token_hex(8), _other_nodes()
    with scratch(home, ".nodes-") as folder:
        (folder / TOKEN_FILE).write_text(token)
        tasks = {name: _submit(node, folder / node, token) for name, node in nodes.items()}
        answers = {name: _result(task) or read_problem(folder / nodes[name], token) for name, task in tasks.items()}
    if problems := [f"  {name}: {problem}" for name, problem in answers.items() if problem]:
        raise SelfsupError(
            f"SELFSUP_HOME: not every node of the cluster sees {home} as this one does:\n"
            + "\n".join(problems)
            + "\nPut it on storage that all nodes share, under the same path on each"
        )


def fewest_nodes(workers: int, resources: Mapping[str, float]) -> int:
    """Return the number of nodes that workers lie on if the largest nodes take as many as fit; at least 1.

    resources: of one worker.
    """
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    rooms = sorted((_room(node["Resources"], resources) for node in nodes if node["Alive"]), reverse=True)
    number = 0
    while workers > 0 and number < len(rooms):
        workers -= rooms[number]
        number += 1
    return max(1, number)


def _room(node: Mapping[str, float], resources: Mapping[str, float]) -> int:
    return floor(min(node.get(name, 0.0) / amount for name, amount in resources.items()) + 1e-9)


def write_back(path: Path, token: str) -> str:
    """Write the token to `path` if it can be read from the file beside it; return the problem, or ""."""
    try:
        if problem := read_problem(path.parent / TOKEN_FILE, token):
            return problem
        path.write_text(token)
    except OSError as error:
        return f"{error.filename}: {error.strerror}"
    return ""


def read_problem(path: Path, token: str) -> str:
    """Return why the token, written on another node, cannot be read here, or ""."""
    deadline = time.monotonic() + SYNC_TIMEOUT
    while True:
        try:
            if path.read_text() == token:
                return ""
            problem = f"{path}: not what was written there"
        except OSError as error:
            problem = f"{path}: {error.strerror}"
        if time.monotonic() > deadline:
            return problem
        time.sleep(0.1)


def _submit(node: str, path: Path, token: str) -> "ray.ObjectRef[str]":
    strategy = NodeAffinitySchedulingStrategy(node, soft=False)
    task = ray.remote(write_back).options(num_cpus=0, max_retries=0, scheduling_strategy=strategy)
    return task.remote(path, token)


def _result(task: "ray.ObjectRef[str]") -> str:
    try:
        return ray.get(task, timeout=TASK_TIMEOUT)
    except GetTimeoutError:
        return f"no task ran there within {TASK_TIMEOUT:.0f} s"
    except RayError as error:
        return str(error).strip().rpartition("\n")[2]


def _other_nodes() -> dict[str, str]:
    """Return the ids of all nodes but this one, by name."""
    this = ray.get_runtime_context().get_node_id()
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    others = [node for node in nodes if node["Alive"] and node["NodeID"] != this]
    return {f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})": node["NodeID"] for node in others}

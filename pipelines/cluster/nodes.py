"""The nodes of a cluster: whether they share a home, before hours are spent on what cannot be found; their room."""

import secrets
import time
from collections.abc import Callable, Mapping
from math import floor
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from selfsup.errors import SelfsupError
from selfsup.homes import mirror_of
from selfsup.mirror import Mirror
from selfsup.redact import redacted
from selfsup.scratch import scratch

TOKEN_FILE = "token"
TASK_TIMEOUT = 120.0  # seconds for a node's first task, which may have a package to install
SYNC_TIMEOUT = 10.0  # seconds in which a network file system shows what another node wrote


def check_shared_folder(home: Path) -> None:
    """Raise SelfsupError that names each node on which `home` is another folder than here, or cannot be used.

    Of a home on object storage: each node that does not reach it.
    """
    token, nodes = secrets.token_hex(8), _other_nodes()
    if mirror := mirror_of(home):
        _check_storage(mirror, token, nodes)
        return
    with scratch(home, ".nodes-") as folder:
        (folder / TOKEN_FILE).write_text(token)
        tasks = {name: _submit(node, write_back, folder / node, token) for name, node in nodes.items()}
        answers = {name: _result(task) or read_problem(folder / nodes[name], token) for name, task in tasks.items()}
    remedy = "Put it on storage that all nodes share, under the same path on each, or give a URL, as s3://bucket/prefix"
    _refuse(answers, f"sees {home} as this one does", remedy)


def _check_storage(mirror: Mirror, token: str, nodes: Mapping[str, str]) -> None:
    name = f"nodes/{token}"
    mirror.store.write(name, token.encode())
    try:
        tasks = {title: _submit(node, read_back, mirror.root, name) for title, node in nodes.items()}
        answers = {title: _result(task) for title, task in tasks.items()}
    finally:
        mirror.store.remove([name])
    remedy = "Give each the credentials and the endpoint, and a folder for its copy, which SELFSUP_CACHE names"
    _refuse(answers, f"reaches {redacted(mirror.url)}", remedy)


def _refuse(answers: Mapping[str, str], wanted: str, remedy: str) -> None:
    """Raise SelfsupError where a node has a problem. answers: of each, "" where it has none."""
    if problems := [f"  {name}: {problem}" for name, problem in answers.items() if problem]:
        lines = [f"SELFSUP_HOME: not every node of the cluster {wanted}:", *problems, remedy]
        raise SelfsupError("\n".join(lines))


def read_back(home: Path, name: str) -> str:
    """Read an object that another node wrote, and write in the folder that mirrors it; return the problem, or ""."""
    mirror = mirror_of(home)
    assert mirror
    try:
        return "" if mirror.node and mirror.store.read(name) else f"{name}: empty"
    except (OSError, SelfsupError) as error:
        return str(error)


def fewest_nodes(workers: int, resources: Mapping[str, float]) -> int:
    """Return the number of nodes that workers lie on if the largest nodes take as many as fit; at least 1.

    resources: of one worker.
    """
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    rooms = sorted((room(node["Resources"], resources) for node in nodes if node["Alive"]), reverse=True)
    number = 0
    while workers > 0 and number < len(rooms):
        workers -= rooms[number]
        number += 1
    return max(1, number)


def room(available: Mapping[str, float], resources: Mapping[str, float]) -> int:
    """Return how many of what needs these resources fit side by side into what is available."""
    return floor(min(available.get(name, 0.0) / amount for name, amount in resources.items()) + 1e-9)


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


def _submit(node: str, function: Callable[[Path, str], str], *args: Any) -> "ray.ObjectRef[str]":
    strategy = NodeAffinitySchedulingStrategy(node, soft=False)
    task = ray.remote(function).options(num_cpus=0, max_retries=0, scheduling_strategy=strategy)
    return task.remote(*args)


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

"""Workers that are forked: they share nothing random, they keep what their runtime environment says, and they end."""

import ctypes
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import ray
from ray.util.state import get_actor

from selfsup.pipelines.cluster.launch import WorkerRequest, _fork

pytestmark = pytest.mark.usefixtures("cluster")


@ray.remote(num_cpus=0)
class Worker:
    def info(self) -> dict[str, object]:
        import numpy as np

        return {
            "object": ray.ObjectID.from_random().hex(),
            "number": float(np.random.rand()),
            "imported": "selfsup.pipelines.stages.worker" in sys.modules,
            "variable": os.environ.get("SELFSUP_TEST"),
            "group": os.getpgid(0) == os.getpid(),
            "cluster": os.environ.get("RAY_ADDRESS"),
        }


def test_workers_are_forks_that_draw_different_numbers() -> None:
    workers = [Worker.remote() for _ in range(3)]  # type: ignore[attr-defined]
    info = ray.get([worker.info.remote() for worker in workers])
    assert all(fact["imported"] and fact["group"] for fact in info)
    assert len({fact["object"] for fact in info}) == len({fact["number"] for fact in info}) == 3


def test_a_worker_has_the_variables_of_its_runtime_environment_and_is_a_fork_all_the_same() -> None:
    worker = Worker.options(runtime_env={"env_vars": {"SELFSUP_TEST": "1"}}).remote()  # type: ignore[attr-defined]
    fact = ray.get(worker.info.remote())
    assert fact["variable"] == "1"
    assert fact["imported"]
    assert ray.get(Worker.remote().info.remote())["variable"] is None  # type: ignore[attr-defined]


def test_a_worker_knows_its_cluster_whatever_others_run_on_the_machine() -> None:
    fact = ray.get(Worker.remote().info.remote())  # type: ignore[attr-defined]
    assert fact["cluster"] == ray.get_runtime_context().gcs_address


def test_a_worker_that_asks_for_another_python_starts_cold() -> None:
    there = ray.remote(lambda: "selfsup.pipelines.stages.worker" in sys.modules)
    assert not ray.get(there.options(runtime_env={"py_executable": f"{sys.executable} -I"}).remote())


def test_a_process_that_has_drawn_an_id_is_found_unfit_to_fork() -> None:
    code = (
        "import ray; from selfsup.pipelines.cluster.forkserver import _can_fork\n"
        "print(_can_fork()); ray.ObjectID.from_random(); print(_can_fork())"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout
    assert told.split() == [b"True", b"False"]


def test_a_killed_worker_takes_no_other_with_it() -> None:
    first, second = Worker.remote(), Worker.remote()  # type: ignore[attr-defined]
    before = ray.get(second.info.remote())
    ray.get(first.info.remote())
    ray.kill(first)
    assert ray.get(second.info.remote())["variable"] == before["variable"]
    assert ray.get(Worker.remote().info.remote())["imported"]  # type: ignore[attr-defined]


def test_a_server_that_has_died_makes_no_worker(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        dies = threading.Thread(target=lambda: listening.accept()[0].close())
        dies.start()
        assert not _fork(WorkerRequest(["default_worker.py"], {}, str(tmp_path)), path)
        dies.join()


def test_a_worker_that_is_done_ends_though_an_exit_handler_of_a_library_hangs() -> None:
    @ray.remote(num_cpus=0)
    class Hanging:
        def process(self) -> int:
            c = ctypes.CDLL(None)
            c["__cxa_atexit"](c.pause, None, None)
            return os.getpid()

        def leave(self) -> None:
            ray.actor.exit_actor()

    worker = Hanging.remote()  # type: ignore[attr-defined]
    process = ray.get(worker.process.remote())
    worker.leave.remote()
    assert gone(process)


def test_the_server_and_a_worker_that_hangs_at_its_exit_end_with_their_raylet() -> None:
    code = (
        "import atexit, os, ray, signal; from selfsup.pipelines.cluster.ray_context import local_ray\n"
        "class Hanging:\n"
        "    def processes(self): atexit.register(signal.pause); return os.getppid(), os.getpid()\n"
        "    def leave(self): ray.actor.exit_actor()\n"
        "with local_ray(num_cpus=1):\n"
        "    worker = ray.remote(Hanging).remote()\n"
        "    print(*ray.get(worker.processes.remote()))\n"
        "    ray.wait([worker.leave.remote()])"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout
    assert all(gone(int(process)) for process in told.split())


def test_a_command_that_imports_for_workers_first_is_what_they_are_forked_from() -> None:
    code = (
        "import os, sys, tempfile; from selfsup.pipelines.cluster.forkserver import import_modules; import_modules()\n"
        "import ray, selfsup; from selfsup.pipelines.cluster.ray_context import local_ray\n"
        "from selfsup.leave import end_when_told; end_when_told()\n"
        "selfsup.mark = 'here'; kept = tempfile.TemporaryDirectory(); print(tempfile.gettempdir(), end=' ')\n"
        "class Fork:\n"
        "    def draw(self): return selfsup.mark, ray.ObjectID.from_random().hex(), tempfile.gettempdir()\n"
        "    def hook(self): return sys.unraisablehook is sys.__unraisablehook__\n"
        "    def leave(self): ray.actor.exit_actor()\n"
        "with local_ray(num_cpus=1):\n"
        "    forks = [ray.remote(num_cpus=0)(Fork).remote() for _ in range(2)]\n"
        "    facts = ray.get([fork.draw.remote() for fork in forks])\n"
        "    print(ray.get(forks[0].hook.remote()), end=' ')\n"
        "    ray.wait([fork.leave.remote() for fork in forks], num_returns=2)\n"
        "print(os.path.isdir(kept.name), *facts[0], *facts[1])"
    )
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True, env=clean)
    own_folder, hook, kept, mark, first, folder, other_mark, second, _ = told.stdout.split()
    assert mark == other_mark == "here", "what this process had in memory"
    assert first != second, "no ids were drawn before"
    assert hook == kept == "True", "its handlers of lost errors, and of its exit, stay its own"
    assert folder != own_folder, "files go where those of this Ray go"


def test_a_local_ray_has_only_the_processes_that_runs_need() -> None:
    started = {process[0].process.pid for process in ray._private.worker._global_node.all_processes.values()}  # type: ignore[attr-defined]
    commands = [Path(f"/proc/{process}/cmdline").read_text() for process in started]
    assert not any("monitor.py" in command for command in commands)
    assert any("--modules-to-load=StateHead" in command for command in commands)
    worker = Worker.remote()  # type: ignore[attr-defined]
    ray.get(worker.info.remote())
    assert get_actor(worker._actor_id.hex(), address=ray.get_runtime_context().gcs_address).state == "ALIVE"


def gone(process: int) -> bool:
    """Within a minute; mostly at once."""
    deadline = time.monotonic() + 60
    while Path(f"/proc/{process}").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    return not Path(f"/proc/{process}").exists()

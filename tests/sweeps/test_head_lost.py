"""A cluster loses the machine of its head in mid-run: the table, losses and weights are those of an undisturbed run.

The head runs nothing of a run but what waits for it, as those of `infra/`. Its GCS keeps its tables in files, which
a head that takes its place reads.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from braked import BRAKE, TWO, BrakedBench, same_digits
from ray_nodes import RayNodes, ray_nodes, tables_in
from sweeping import kill_session

pytestmark = pytest.mark.slow  # each run takes a minute
# steps of a second each with the brake on: time for another command to begin
CHANGES: dict[str, Any] = TWO | {"train": {"duration": {"steps": 200}}}


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory, brake: Path) -> Iterator[RayNodes]:
    tables = tables_in(tmp_path_factory.mktemp("gcs"))
    with ray_nodes(0, 1, 1, dashboard=False, **{BRAKE: str(brake)}, **tables) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, braked_sets: dict[str, str]) -> BrakedBench:
    return BrakedBench(tmp_path_factory.mktemp("undisturbed"), braked_sets, **CHANGES).alone(2)


@pytest.fixture
def bench(tmp_path: Path, braked_sets: dict[str, str], nodes: RayNodes, brake: Path) -> Iterator[BrakedBench]:
    """A place whose run trains slowly until `brake` is gone."""
    brake.touch()
    yield BrakedBench(tmp_path, braked_sets, **CHANGES).on(nodes)
    brake.unlink(missing_ok=True)


def test_a_command_that_was_lost_with_it_goes_on_where_it_was(
    nodes: RayNodes, bench: BrakedBench, undisturbed: BrakedBench, brake: Path
) -> None:
    """And the workers of the first one, on nodes that live, end before those of the second begin."""
    left = lose_with_command(nodes, bench)
    nodes.begin(0)
    with bench.sweeping() as process:
        bench.goes_on(process)
        brake.unlink()
        told, _ = process.communicate()
    assert process.returncode == 0, told
    assert not any(Path(f"/proc/{number}").exists() for number in left)
    same_digits(bench, undisturbed)


def test_a_run_whose_command_is_on_another_node_goes_on(
    nodes: RayNodes, bench: BrakedBench, undisturbed: BrakedBench, brake: Path
) -> None:
    """With the same workers, under a head that takes the place of the lost one."""
    with bench.beside(nodes.nodes[1]).sweeping() as process:
        bench.trains(process)
        before = workers(nodes)
        nodes.nodes[0].kill()
        nodes.begin(0)
        for _ in range(2):
            bench.goes_on(process)
        assert workers(nodes) == before
        brake.unlink()
        told, _ = process.communicate()
    assert process.returncode == 0, told
    same_digits(bench, undisturbed)


def lose_with_command(nodes: RayNodes, bench: BrakedBench) -> set[int]:
    """Sweep from the head, whose machine loses its power once it trains; return the numbers of the workers left."""
    with bench.sweeping() as process:
        bench.trains(process)
        nodes.nodes[0].kill()
        kill_session(process.pid)
    left = workers(nodes)
    assert len(left) == 2
    return left


def workers(nodes: RayNodes) -> set[int]:
    """Return the numbers of the processes that train on nodes other than the head."""
    return {number for node in nodes.nodes[1:] for number in node.processes("RayTrainWorker")}

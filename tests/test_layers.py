"""The layers of the house, held over the imports as they are written; those for typing count."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FLOORS = {  # from the top; each may import those below it
    "sweeps": "selfsup.sweeps",
    "pipelines": "selfsup.pipelines",
    "methods": "selfsup.methods",
    "platform": "selfsup",
}
ENTRANCES = {
    ROOT / "platform" / "selfsup" / name
    for name in (
        "cli.py",
        "cli_catalogue.py",
        "cli_cluster.py",
        "cli_encoders.py",
        "cli_runs.py",
        "cli_shards.py",
        "__init__.py",
    )
}
TRACKERS = {"track", "mlflow_store", "mlflow_tree", "results"}
LIGHT = (
    "pipelines/data/order.py", "pipelines/data/philox.py", "pipelines/data/manifest.py", "pipelines/data/shards.py",
    "pipelines/modalities/pixels/decode.py",
    *(f"platform/selfsup/{name}.py" for name in ("knob", "spec", "source", "errors", "track", "metrics_log", "views")),
)  # fmt: skip
ROOMS = {  # beside the floors, what a folder may not import
    "sweeps/spec": ("ray", "torch", "mlflow"),
    "sweeps/report": ("ray", "torch"),
    "pipelines/data": ("selfsup.pipelines.stages", "selfsup.pipelines.planned", "selfsup.pipelines.planning"),
    "pipelines/modalities": ("ray", "selfsup.pipelines.stages"),
}


def modules(floor: str) -> Iterator[tuple[Path, frozenset[str]]]:
    """Each file of a floor with the modules, or names in them, that it imports."""
    for path in (ROOT / floor).rglob("*.py"):
        yield path, imports(path)


@cache
def imports(path: Path, *, nested: bool = True) -> frozenset[str]:
    """nested: also those inside functions, and for typing."""
    names: set[str] = set()
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree) if nested else tree.body:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(names)


def floor_of(name: str) -> str | None:
    return next((floor for floor, package in FLOORS.items() if f"{name}.".startswith(f"{package}.")), None)


def test_a_floor_imports_nothing_above_it() -> None:
    floors = list(FLOORS)
    for number, floor in enumerate(floors):
        for path, names in modules(floor):
            if path not in ENTRANCES:  # the commands, and the lazy facade
                assert not {floor_of(name) for name in names} & set(floors[:number]), path


def test_imports_run_in_no_circle() -> None:
    imported = {module(path): names for floor in FLOORS for path, names in modules(floor)}
    graph = {
        name: {target if target in imported else target.rpartition(".")[0] for target in targets}
        for name, targets in imported.items()
    }
    while leaves := [name for name, targets in graph.items() if not targets & graph.keys()]:
        for name in leaves:
            del graph[name]
    assert not graph, "each of these imports itself through others"


def test_only_pipelines_and_sweeps_import_ray_and_only_the_tracker_and_the_report_mlflow() -> None:
    for floor in FLOORS:
        for path, names in modules(floor):
            tops = {name.split(".")[0] for name in names}
            assert "ray" not in tops or floor in ("pipelines", "sweeps"), path
            assert "mlflow" not in tops or path.stem in TRACKERS, path


def test_nothing_imports_a_method_or_an_evaluation_by_name() -> None:
    for floor in FLOORS:
        for path, names in modules(floor):
            assert not [name for name in names if name.startswith(("selfsup.methods.", "selfsup.evals."))], path


@pytest.mark.parametrize(("room", "banned"), ROOMS.items())
def test_a_room_imports_only_what_the_map_in_the_readme_says(room: str, banned: tuple[str, ...]) -> None:
    for path in (ROOT / room).glob("*.py"):
        names = [f"{name}." for name in imports(path)]
        assert not [name for name in names for top in banned if name.startswith(f"{top}.")], path


def reached(*entries: str) -> set[str]:
    """The modules that are imported when these are, ours by name and those of others by their top."""
    paths = {module(path): path for floor in FLOORS for path in (ROOT / floor).rglob("*.py")}
    found, pending = set[str](), list(entries)
    while pending:
        name = pending.pop()
        name = name if name in paths else name.rpartition(".")[0] if name.rpartition(".")[0] in paths else name
        if name in paths and name not in found:
            pending += [*imports(paths[name], nested=False), name.rpartition(".")[0]]
        found.add(name if name in paths else name.partition(".")[0])
    return found


def test_who_reads_results_needs_neither_ray_nor_torch() -> None:
    """`runs`, `compare`, `clean` and `ui` do without; `report` and `status` do once a sweep has been planned."""
    heavy = {"ray", "torch", "torchvision", "timm", "lightning", "optuna"}
    listing = ("selfsup.cli", "selfsup.track", *(f"selfsup.sweeps.{name}" for name in ("listing", "clean", "stored")))
    readers = (
        *listing,
        "selfsup.sweeps.plans",
        "selfsup.sweeps.spec.outline",
        "selfsup.sweeps.report.compare",
        "selfsup.sweeps.report.results",
        "selfsup.sweeps.mlflow_views",
    )
    assert not reached(*readers) & (heavy | {"scipy", "sklearn", "matplotlib"})
    assert not reached("selfsup.sweeps.report.paper") & heavy
    assert not reached("selfsup.sweeps.reports", "selfsup.sweeps.layout", "selfsup.sweeps.status") & {"ray", "optuna"}
    assert "ray" in reached("selfsup.sweeps.session"), "the search for imports finds them"


def test_what_a_plan_needs_stays_free_of_torch() -> None:
    for path in LIGHT:
        assert "torch" not in {name.split(".")[0] for name in imports(ROOT / path)}, path


def test_samples_are_read_without_torch() -> None:
    """A modality's host part, whose device part imports torch when it is called."""
    command = "import sys, selfsup.pipelines.data.pack; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", command], check=False).returncode == 0


def test_no_file_is_a_drawer() -> None:
    names = {path.stem for floor in FLOORS for path, _ in modules(floor)}
    assert not names & {"utils", "helpers", "common", "misc"}


def module(path: Path) -> str:
    floor, *inner = path.relative_to(ROOT).with_suffix("").parts
    inner = inner[1:] if floor == "platform" else inner
    return ".".join([FLOORS[floor], *(part for part in inner if part != "__init__")])

"""The layer rule of the house, held over the imports as they are written."""

import ast
from pathlib import Path

ROOT = Path(__file__).parent.parent
CORE, METHODS, PIPELINES = ROOT / "platform" / "selfsup", ROOT / "methods", ROOT / "pipelines"
BOTTOM = {"selfsup.parts", "selfsup.pipelines.views", "selfsup.pipelines.masks", "selfsup.pipelines.patch"}
RAY = {"feed", "share", "pretrain", "worker", "evaluate", "cluster", "nodes", "pulse", "submit", "forkserver"}


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def ours(path: Path) -> set[str]:
    return {name for name in imports(path) if name.split(".")[0] == "selfsup"}


def within(name: str, homes: set[str]) -> bool:
    return any(f"{name}.".startswith(f"{home}.") for home in homes)


def test_the_bottom_layer_imports_nothing_above_it() -> None:
    for path in [*(CORE / "parts").glob("*.py"), *(PIPELINES / f"{name}.py" for name in ("views", "masks", "patch"))]:
        assert all(within(name, BOTTOM) for name in ours(path)), path


def test_methods_import_the_bottom_layer_the_interface_and_encoders() -> None:
    allowed = BOTTOM | {"selfsup.knob", "selfsup.method", "selfsup.encoder"}
    for path in METHODS.glob("*.py"):
        assert all(within(name, allowed) for name in ours(path)), path


def test_nothing_imports_a_method_by_name() -> None:
    for path in [*CORE.rglob("*.py"), *PIPELINES.glob("*.py")]:
        assert all(
            name in ("selfsup.methods", "selfsup.evals") for name in ours(path) if within(name, {"selfsup.methods"})
        )


def test_ray_is_imported_by_the_stream_and_the_stages_and_mlflow_by_the_tracker() -> None:
    for path in [*CORE.rglob("*.py"), *METHODS.glob("*.py"), *PIPELINES.glob("*.py")]:
        tops = {name.split(".")[0] for name in imports(path)}
        assert "ray" not in tops or path.stem in RAY, path
        assert "mlflow" not in tops or path.stem in ("track", "store", "results", "tree"), path  # the last two: types


def test_shards_and_the_plan_of_a_baseline_stay_free_of_torch() -> None:
    light = [*(PIPELINES / f"{name}.py" for name in ("lanes", "counted", "decode", "manifest", "shards", "views"))]
    light += [CORE / f"{name}.py" for name in ("knob", "spec", "source", "errors", "track", "spool")]
    for path in light:
        assert "torch" not in {name.split(".")[0] for name in imports(path)}, path


def test_no_file_is_a_drawer() -> None:
    names = {path.stem for top in (CORE, METHODS, PIPELINES, ROOT / "sweeps") for path in top.rglob("*.py")}
    assert not names & {"utils", "helpers", "common", "misc"}

"""The source root is called `platform`, as a module of the standard library is: these tests keep that harmless."""

import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import selfsup
from selfsup import codebase
from selfsup.pipelines.cluster.wheel import build_wheel

ROOT = Path(__file__).parent.parent
SETUPTOOLS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]


def folders() -> dict[str, Path]:
    """Package -> folder, by the longest mapping that leads to it."""
    found = {}
    for package in SETUPTOOLS["packages"]:
        prefix = max((name for name in SETUPTOOLS["package-dir"] if f"{package}.".startswith(f"{name}.")), key=len)
        found[package] = (
            ROOT / SETUPTOOLS["package-dir"][prefix] / package.removeprefix(prefix).strip(".").replace(".", "/")
        )
    return found


def python(*args: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, *args], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def recipes(where: Path) -> str:
    """Return what `selfsup recipes` prints, of the package in this folder."""
    script = "import selfsup.cli as c; assert c.__file__.startswith(__import__('sys').argv[1]); c.app(['recipes'])"
    return python("-c", script, str(where), PYTHONPATH=str(where))


def test_the_source_root_is_no_package() -> None:
    assert not (ROOT / "platform" / "__init__.py").exists()


@pytest.mark.parametrize("environment", [{}, {"PYTHONPATH": str(ROOT)}])
def test_the_standard_library_wins_from_the_root_and_with_the_root_first_on_the_path(
    environment: dict[str, str],
) -> None:
    assert python("-c", "import platform; print(platform.system())", **environment) == "Linux"
    assert Path(python("-c", "import platform; print(platform.__file__)", **environment)).parent.name.startswith(
        "python3"
    )


def test_no_module_bears_the_name_of_one_in_the_standard_library() -> None:
    names = {path.stem for folder in folders().values() for path in folder.glob("*.py")}
    assert not names & sys.stdlib_module_names


def test_every_python_file_of_the_tree_is_in_exactly_one_package() -> None:
    tops = [ROOT / "platform", ROOT / "methods", ROOT / "pipelines", ROOT / "sweeps", ROOT / "infra"]
    held = [path for folder in folders().values() for path in folder.glob("*.py")]
    assert sorted(path for top in tops for path in top.rglob("*.py")) == sorted(held)
    assert all((folder / "__init__.py").exists() for folder in folders().values())


DATA = (
    "selfsup/sweeps/report/hover.js",
    "selfsup/sweeps/report/page.css",
    "selfsup/sweeps/report/page.html", "selfsup/backbones.csv", "selfsup/methods/proofs.yaml", "selfsup/py.typed"
)  # fmt: skip


def test_the_wheel_holds_what_the_tree_holds_and_asks_for_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with zipfile.ZipFile(build_wheel(ROOT, tmp_path)) as wheel:
        wheel.extractall(tmp_path / "unpacked")
        assert wheel.testzip() is None
        names = [name for name in wheel.namelist() if ".dist-info/" not in name]
        metadata = next(wheel.read(name).decode() for name in wheel.namelist() if name.endswith("METADATA"))
    tree = [
        f"{package.replace('.', '/')}/{path.name}"
        for package, folder in folders().items()
        for path in folder.glob("*.py")
    ]
    specs = [path for pattern in ("pipelines/*/*.yaml", "sweeps/*.yaml") for path in ROOT.glob(pattern)]
    shipped = [f"selfsup/{path.relative_to(ROOT)}" for path in specs]
    assert sorted(names) == sorted([*tree, *shipped, *DATA])
    assert recipes(tmp_path / "unpacked") == recipes(ROOT / "platform"), "the wheel's are named as the checkout's"
    assert "Requires-Dist" not in metadata
    entries = ("selfsup.pipelines.stages.worker", "selfsup.pipelines.stages.evaluate", "selfsup.methods.mae")
    here = codebase.modules.__wrapped__(*entries)
    codebase._module.cache_clear()
    monkeypatch.setattr(codebase, "_source", lambda name: tmp_path / "unpacked" / f"{name.replace('.', '/')}.py")
    assert codebase.modules.__wrapped__(*entries) == here, "a job on a cluster is made by the same code"
    codebase._module.cache_clear()


def test_the_facade_shows_exactly_what_it_lists() -> None:
    assert sorted(selfsup.__all__) == selfsup.__all__
    assert all(getattr(selfsup, name).__name__ == name for name in selfsup.__all__)
    assert callable(selfsup.knob)

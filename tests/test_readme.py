"""The README shows what is there."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import typer.main

from selfsup.augmentation import load
from selfsup.augmentation_contract import check
from selfsup.cli import app
from selfsup.describe import catalogue, page
from selfsup.errors import SpecError
from selfsup.spec import Spec, read
from selfsup.sweeps.spec import reference
from selfsup.sweeps.spec.schema import schema

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_your_own_objective_is_the_whole_of_simclr() -> None:
    _, shown, _ = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    assert shown == (ROOT / "methods" / "simclr.py").read_text()


def test_the_notebook_runs_in_a_folder_without_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    notebook, *_ = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SELFSUP_HOME", str(tmp_path / "home"))
    exec(compile(notebook, "README.md", "exec"), {})
    temperature, heading, *rows = capsys.readouterr().out.splitlines()
    assert temperature == "0.2 2"
    assert heading.split() == ["study", "arm", "seed", "status"]
    assert [row.split()[-2:] for row in rows] == [["0", "pending"], ["1", "pending"]] * 3


def test_your_own_augmentation_keeps_the_contracts_and_blanks_bands(tmp_path: Path) -> None:
    """The first of the draws 0.1, 0.2 and 0.9 is below its share of 0.2."""
    *_, shown = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    (file := tmp_path / "bands.py").write_text(shown)
    assert set(dict(check(str(file))).values()) == {""}
    kind = load(str(file))
    images, draws = torch.full((1, 3, 1, 1), 0.5), torch.tensor([[0.1, 0.2, 0.9]])
    assert kind(kind.Hyper()).apply(images, draws).flatten().tolist() == [0.0, 0.5, 0.5]


def test_the_objectives_shown_are_those_that_describe_lists() -> None:
    """All in methods/README.md, which `make catalogue` writes; some of them in the README."""
    assert (ROOT / "methods" / "README.md").read_text() == page()
    (shown,) = re.findall(r"```\n(method .*?)\n```", README, flags=re.DOTALL)
    heading, *rows = shown.splitlines()
    assert heading == catalogue().splitlines()[0]
    assert len(rows) == 6
    assert set(rows) <= set(catalogue().splitlines())


def test_every_key_of_specs_and_sweeps_has_a_meaning() -> None:
    """All in sweeps/README.md, which `make catalogue` writes."""
    text = (ROOT / "sweeps" / "README.md").read_text()
    assert text == reference.page()
    rows = {row[1]: row[-2] for line in text.splitlines() if len(row := re.split(r" ?\| ?", line)) == 6}
    properties = schema()["properties"]
    assert all(properties[key]["description"] in rows[f"`{key}`"] for key in ("ablate", "grid", "studies", "question"))
    keys = {*properties, *Spec.model_fields} - {"hyper"}
    assert keys <= {key.strip("`").partition(".")[0] for key in rows}
    assert all(rows.values())


def test_the_map_has_a_line_for_every_folder_and_no_other() -> None:
    (shown,) = re.findall(r"```\n(sweeps/ .*?)```", README, flags=re.DOTALL)
    mapped = [line.split()[0] for line in shown.splitlines()]
    assert len(mapped) <= 38
    assert sorted(mapped) == sorted(folders())


def folders() -> Iterator[str]:
    """Yield the folders of the tree that hold files; of the tests only the whole."""
    for top in ("sweeps", "pipelines", "methods", "platform", "tests", "infra", "findings"):
        inner = [ROOT / top, *(path for path in (ROOT / top).rglob("*") if path.is_dir() and top != "tests")]
        for folder in inner:
            if folder.name != "__pycache__" and any(path.is_file() for path in folder.iterdir()):
                yield f"{folder.relative_to(ROOT)}/"
    known = {"sweeps", "pipelines", "methods", "platform", "tests", "infra", "findings", "build", "dist"}
    tops = {path.name for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith(".")}
    yield from (f"{name}/" for name in tops - known if not name.endswith(".egg-info"))


def test_every_command_stands_in_the_table() -> None:
    listed = re.findall(r"^\| `selfsup ([\w-]+)", README, flags=re.MULTILINE)
    assert sorted(listed) == sorted(typer.main.get_command(app).commands)


def test_what_it_links_to_is_there() -> None:
    targets = re.findall(r"\]\((?!http)([^)]+)\)", README)
    assert {"infra/report.png", "sweeps/README.md"} <= set(targets)
    assert [target for target in targets if not (ROOT / target).is_file()] == []


def test_the_spec_shown_is_one_and_its_error_is_the_one_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec, _ = re.findall(r"```yaml\n(.*?)```", README, flags=re.DOTALL)
    (error,) = re.findall(r"```\n(flowers\.yaml:.*?)\n```", README, flags=re.DOTALL)
    monkeypatch.chdir(tmp_path)
    path = Path("flowers.yaml")
    path.write_text(spec)
    assert len(read(path).runs) == 3
    path.write_text(spec.replace("mask_ratio", "mask_ration"))
    with pytest.raises(SpecError) as caught:
        read(path)
    assert str(caught.value) == error

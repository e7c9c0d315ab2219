"""The README shows what is there."""

import re
from pathlib import Path

import pytest
import typer.main

from selfsup.cli import app
from selfsup.describe import catalogue
from selfsup.errors import SpecError
from selfsup.spec import read

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_your_own_objective_is_the_whole_of_simclr() -> None:
    (shown,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    assert shown == (ROOT / "methods" / "simclr.py").read_text()


def test_the_objectives_shown_are_those_that_describe_lists() -> None:
    (shown,) = re.findall(r"```\n(method .*?)\n```", README, flags=re.DOTALL)
    assert shown == catalogue()


def test_every_command_stands_in_the_table() -> None:
    listed = re.findall(r"^\| `selfsup (\w+)", README, flags=re.MULTILINE)
    assert sorted(listed) == sorted(typer.main.get_command(app).commands)


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

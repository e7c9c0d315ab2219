"""Names and numbers that lead out of the home, or beyond any cluster: refused at their place."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from selfsup.errors import CheckpointError, SpecError
from selfsup.naming import name_problem
from selfsup.pipelines.export import export
from selfsup.spec import read
from selfsup.sweeps.spec import sweepfile

BASE: dict[str, Any] = {
    "name": "x",
    "method": "pixels",
    "data": {"train": "/a"},
    "train": {"duration": {"steps": 1}},
}
OUTSIDE = ["../x", "..", ".", "/etc/x", "a/b", "a\\b", "..\\x"]
UNTYPED = ["a\nb", "a\0b", "\x1b[31m", "\x7f", "a\u2028b", "\x85", "\udc80"]
LONG = ["x" * 101, "é" * 51]
FINE = ["x", "mask ratio 0.75", "...", ".hidden", "höhe-1_2", "你好", "a..b", "%2e%2e%2f", "x" * 100]


@pytest.mark.parametrize(("names", "word"), [(OUTSIDE, "path"), (UNTYPED, "control"), (LONG, "bytes"), (FINE, "")])
def test_which_names_are_fit(names: list[str], word: str) -> None:
    assert all(word in name_problem(name) and bool(word) == bool(name_problem(name)) for name in names)


def written(path: Path, **told: Any) -> Path:
    path.write_text(yaml.safe_dump(BASE | told))
    return path


@pytest.mark.parametrize("name", [*OUTSIDE, *UNTYPED[:-1], *LONG])
def test_a_spec_or_study_of_such_a_name_is_refused_at_its_place(name: str, tmp_path: Path) -> None:
    why = r"name: (expected a file name|.* holds a NUL)"
    spec = written(tmp_path / "a.yaml", name=name)
    for reader in (read, sweepfile.read):
        with pytest.raises(SpecError, match=rf"a\.yaml:\d+:\d+: {why}"):
            reader(spec)
    studies = written(tmp_path / "b.yaml", studies=[{"name": name, "seeds": 2}, {"name": "b"}])
    with pytest.raises(SpecError, match=rf"b\.yaml:\d+:\d+: studies\[0\]\.{why}"):
        sweepfile.read(studies)


@pytest.mark.parametrize("name", FINE)
def test_other_names_are_taken(name: str, tmp_path: Path) -> None:
    assert read(written(tmp_path / "a.yaml", name=name)).name == name


@pytest.mark.parametrize(
    ("knob", "expected"),
    [
        ("workers", r"expected how many workers \(1 to 65536\)"),
        *((name, r"must be .*≤ \d+, not \d+") for name in ("cpus_per_worker", "gpus_per_worker", "data_cpus")),
        *((name, r"must be .*≤ \d+, not \d+") for name in ("data_memory", "eval_memory", "max_failures")),
    ],
)
def test_what_no_cluster_has_is_refused(knob: str, expected: str, tmp_path: Path) -> None:
    for value in (2**31, 10**12):
        with pytest.raises(SpecError, match=rf"a\.yaml:\d+:\d+: resources\.{knob}: {expected}"):
            read(written(tmp_path / "a.yaml", resources={knob: value}))


def test_an_id_is_no_path(tmp_path: Path) -> None:
    home = tmp_path / "home"
    (home / "runs").mkdir(parents=True)
    (tmp_path / "x.json").write_text(json.dumps({"pretrain": "../../x"}))
    for run_id in ("../../x", str(tmp_path / "x")):
        with pytest.raises(CheckpointError, match=f"no run {run_id} under"):
            export(home, run_id, tmp_path / "out", to="torch")
    assert not (tmp_path / "out").exists()

"""The files that travel with a job: specs with all that they extend and name, in the same layout."""

from pathlib import Path

import pytest

from selfsup.pipelines.cluster.submit import copy_all, copy_specs


def test_what_is_sent_is_all_that_is_extended_and_no_more(tmp_path: Path) -> None:
    here = tmp_path / "here"
    for name, text in {
        "common.yaml": "seeds: 2",
        "specs/deep/base.yaml": "extends: ../../common.yaml",
        "specs/other.yaml": "seeds: 3",
        "specs/stranger.yaml": "seeds: 4",
        "sweeps/s.yaml": "studies:\n  - {extends: ../specs/deep/base.yaml}\n  - {extends: ../specs/other.yaml}",
    }.items():
        (here / name).parent.mkdir(parents=True, exist_ok=True)
        (here / name).write_text(text)
    names = copy_specs([here / "sweeps" / "s.yaml"], tmp_path / "there")
    assert names == ["sweeps/s.yaml"]
    sent = {str(path.relative_to(tmp_path / "there")): path.read_text() for path in tmp_path.glob("there/**/*.yaml")}
    held = {str(path.relative_to(here)): path.read_text() for path in here.glob("**/*.yaml")}
    assert sent == {name: text for name, text in held.items() if name != "specs/stranger.yaml"}
    assert copy_specs([here / "common.yaml"], tmp_path / "alone") == ["common.yaml"]


def test_files_of_objectives_and_evaluations_travel_with_the_specs_that_name_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    for name, text in {
        "specs/base.yaml": "method: ../methods/mine.py",
        "specs/own.yaml": "extends: ../evals/deep.yaml\naugment: {use: ../light.py}",
        "specs/sweep.yaml": "studies:\n  - {extends: own.yaml, method: ./other.py}\n  - {method: my_lab:Mine}\n"
        "ablate: {augment.use: [../axes/one.py, null], evals: {own: {use: [../axes/two.py]}}}\n"
        "grid: {evals.own.use: [../axes/three.py, my_lab:Own]}",
        "evals/deep.yaml": "extends: ../specs/base.yaml\nevals: {knn: {}, own: {use: ../evals/own.py}, off: null}",
        "evals/own.py": "own = 1",
        "methods/mine.py": "mine = 1",
        "light.py": "light = 1",
        "axes/one.py": "one = 1",
        "axes/two.py": "two = 1",
        "axes/three.py": "three = 1",
        "specs/other.py": "other = 1",
        "given.py": "given = 1",
        "other/given.py": "given = 2",
    }.items():
        (here / name).parent.mkdir(parents=True, exist_ok=True)
        (here / name).write_text(text)
    monkeypatch.chdir(here)
    specs, overrides = (
        [Path("specs/sweep.yaml")],
        ["seeds=2", "method=given.py", "method=simclr", "evals.own.use=other/given.py", "augment.use=given.py"],
    )
    assert copy_all(specs, overrides, there) == (["specs/sweep.yaml"], overrides)
    files = {path.relative_to(here) for path in here.rglob("*") if path.is_file()}
    assert {path.relative_to(there) for path in there.rglob("*") if path.is_file()} == files
    assert (there / "given.py").read_text() == "given = 1"
    monkeypatch.chdir(here / "specs")
    assert copy_all([Path("own.yaml")], ["method=../given.py"], tmp_path / "up") == (
        ["specs/own.yaml"],
        ["method=given.py"],
    )


def test_shipped_specs_are_sent_by_name_since_the_wheel_holds_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("own.yaml").write_text("extends: photos/simclr\nseeds: 2")
    assert copy_specs([Path("in1k/mae"), Path("own.yaml"), Path("demo.yaml")], tmp_path / "there") == [
        "in1k/mae",
        "own.yaml",
        "demo.yaml",
    ]
    assert [path.name for path in (tmp_path / "there").iterdir()] == ["own.yaml"]
    assert copy_specs([Path("in1k/mae")], tmp_path / "none") == ["in1k/mae"]
    assert list((tmp_path / "none").iterdir()) == []

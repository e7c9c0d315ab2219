"""Plans that are recalled: the same as those planned, as long as file, data and code are; and what commands import."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from command_line import SPEC, packed_folder, process, selfsup

from selfsup.pipelines.summary import as_data
from selfsup.sweeps.plans import Plan
from selfsup.sweeps.spec import sweepfile

ABLATE = {"ablate": {"hyper.mask_ratio": [0.5, 0.75], "train.duration": [{"steps": 2}, {"steps": 4}]}}
EVALS = {"evals": {"knn": {"k": 3}, "few": {"use": "knn", "k": 1}, "finetune": {"batch": 8, "epochs": 2, "warmup": 1}}}
HEAVY = {"torch", "timm", "torchvision", "mlflow", "ray", "pandas", "matplotlib", "sklearn", "scipy"}
LIST = "import sys; from selfsup.cli import app; app(sys.argv[1:], standalone_mode=False); print(*sys.modules)"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    packed = packed_folder(tmp_path_factory.mktemp("plans"))
    (packed / "swept.yaml").write_text(yaml.safe_dump(SPEC | ABLATE | EVALS))
    return packed


@pytest.fixture(autouse=True)
def inside(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


def plan(name: str, folder: Path, *overrides: str) -> Plan:
    return Plan(Path(name), overrides, folder / "home")


def test_what_is_recalled_is_what_was_planned(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = plan("swept.yaml", folder)
    sweep, planned = first.planned
    before = first.sweep, json.dumps(as_data(first.runs.values())), first.warnings, first.facts
    monkeypatch.setattr(sweepfile, "read", lambda *_: pytest.fail("it is read again"))
    again = plan("swept.yaml", folder)
    assert (again.sweep, json.dumps(as_data(again.runs.values())), again.warnings, again.facts) == before
    assert again.sweep == sweep, "tuples, numbers of seeds and units among them"
    for key, run in planned.items():
        summary = again.runs[key]
        assert [stage.key for stage in summary.stages] == [stage.key for stage in run.stages]
        assert [stage.folder for stage in summary.stages] == [stage.folder for stage in run.stages]
        assert [stage.settings for stage in summary.stages] == [stage.settings for stage in run.stages]
        assert [[one.key for one in stage.after] for stage in summary.stages] == [
            [one.key for one in stage.after] for stage in run.stages
        ]
        assert (summary.failure, summary.pretrain and summary.pretrain.key) == (
            run.failure,
            run.pretrain and run.pretrain.key,
        )


def test_each_command_says_the_same_again(folder: Path) -> None:
    """As the first time, when nothing was recalled, and without the folder."""
    for command in (["plan", "swept.yaml"], ["plan", "tiny.yaml", "--json"], ["status", "swept.yaml"], ["describe"]):
        first = selfsup(*command, cwd=folder)
        assert first.out, first.err
        assert selfsup(*command, cwd=folder) == first
        shutil.rmtree(folder / "home" / "cache")
        assert selfsup(*command, cwd=folder) == first


def test_a_stage_that_ends_is_seen_by_what_is_recalled(folder: Path) -> None:
    run = next(run for run in plan("tiny.yaml", folder).runs.values() if run.pretrain)
    assert run.pretrain
    run.pretrain.folder.mkdir(parents=True)
    run.pretrain.finish({"seconds": 1.0})
    assert "pretrain*, pictures" in selfsup("plan", "tiny.yaml", cwd=folder).out
    shutil.rmtree(run.pretrain.folder)


def test_another_file_override_or_data_set_is_planned_anew(folder: Path) -> None:
    ids = set(plan("tiny.yaml", folder).runs)
    assert set(plan("tiny.yaml", folder, "seeds=[7]").runs).isdisjoint(ids)
    (folder / "tiny.yaml").write_text(yaml.safe_dump(SPEC | {"seeds": 2}))
    assert len(plan("tiny.yaml", folder).runs) == 2 * len(ids)
    (folder / "tiny.yaml").write_text(yaml.safe_dump(SPEC))
    assert set(plan("tiny.yaml", folder).runs) == ids
    shutil.move(folder / "train", folder / "kept")
    gone = selfsup("plan", "tiny.yaml", cwd=folder)
    assert (gone.code, "no manifest" in gone.err or "manifest" in gone.err) == (3, True), gone.err
    done = selfsup("shards", "pack", "images", "train", "--shard-size", "6", "--resize", "10", cwd=folder)
    assert done.code == 0, done.err
    assert set(plan("tiny.yaml", folder).runs).isdisjoint(ids)
    shutil.rmtree(folder / "train")
    shutil.move(folder / "kept", folder / "train")


@pytest.mark.parametrize(
    "change",
    [
        {"method": "./mine.py"},
        {"evals": {"mine": {"use": "lab.evals:Mine"}}},
        {"augment": {"use": "./mine.py"}},
        {"backbone": SPEC["backbone"] | {"name": "hf:ViTConfig"}},
        {"backbone": SPEC["backbone"] | {"weights": "encoder.safetensors"}},
        {"teacher": {"from": "a-run"}},
        {"start": {"from": "./changed.yaml"}},
        {"evals": {"knn": {"data": {"classes": "names.yaml"}}}},
        {"ablate": {"backbone.weights": ["a.safetensors", "b.safetensors"]}},
        {"ablate": {"data.train": ["a", "b"]}},
        {"search": {"metric": "eval/knn/top1"}},
    ],
    ids=str,
)
def test_what_lies_elsewhere_is_looked_at_each_time(folder: Path, change: dict[str, Any]) -> None:
    (folder / "changed.yaml").write_text(yaml.safe_dump(SPEC | change))
    assert sweepfile.signature(Path("changed.yaml")) is None
    (folder / "changed.yaml").write_text(yaml.safe_dump(SPEC | {"name": "again"}))
    assert sweepfile.signature(Path("changed.yaml")) is not None


def test_the_files_that_a_spec_names_are_part_of_what_settles_its_plan(folder: Path) -> None:
    """Weights, classes, and the spec of an earlier training with the one that it extends."""
    (folder / "base.yaml").write_text(yaml.safe_dump(SPEC))
    (folder / "earlier.yaml").write_text(yaml.safe_dump({"extends": "base.yaml", "seeds": 1}))
    named = {
        "encoder.safetensors": {"backbone": SPEC["backbone"] | {"weights": "encoder.safetensors"}},
        "names.json": {"evals": {"knn": {"data": {"classes": "names.json"}}}},
        "base.yaml": {"start": {"from": "./earlier.yaml"}},
    }
    for name, change in named.items():
        (folder / "changed.yaml").write_text(yaml.safe_dump(SPEC | change))
        texts = [SPEC, SPEC | {"optim": {"lr": 2e-4}}] if name == "base.yaml" else [1, 2]
        seen = []
        for text in (*texts, texts[0]):
            (folder / name).write_text(yaml.safe_dump(text))
            seen.append(sweepfile.signature(Path("changed.yaml")))
        assert seen[0] == seen[2] != seen[1], name
        assert None not in seen


def test_a_plan_with_an_earlier_training_is_kept_with_the_data_of_both(folder: Path) -> None:
    shutil.copytree(folder / "train", folder / "more")
    own = SPEC | {"name": "earlier", "data": {"train": "more", "val": "train"}}
    (folder / "earlier.yaml").write_text(yaml.safe_dump(own))
    (folder / "started.yaml").write_text(yaml.safe_dump(SPEC | {"start": {"from": "./earlier.yaml", "data": "own"}}))
    first = plan("started.yaml", folder)
    shown = json.dumps(as_data(first.runs.values()))
    assert set(first._dated(None)["data"]) >= {str(folder / "more"), str(folder / "train")}
    again = plan("started.yaml", folder)
    assert json.dumps(as_data(again.runs.values())) == shown
    assert "planned" not in vars(again), "it is recalled"
    (folder / "earlier.yaml").write_text(yaml.safe_dump(own | {"optim": {"lr": 1e-5}}))
    assert set(plan("started.yaml", folder).runs) != set(first.runs)


@pytest.mark.parametrize("command", [["--help"], ["describe"], ["plan", "tiny.yaml"], ["runs"]], ids=str)
def test_a_command_imports_nothing_heavy(folder: Path, command: list[str]) -> None:
    """The second time, where the first has to plan."""
    assert selfsup(*command, cwd=folder).code == 0
    shown = process("-c", LIST, *command, cwd=folder)
    assert shown.code == 0, shown.err
    assert not HEAVY & set(shown.out.splitlines()[-1].split())


def test_a_status_imports_nothing_heavy(folder: Path) -> None:
    """It exits with 1 while runs are missing."""
    assert selfsup("status", "swept.yaml", cwd=folder).code == 1
    shown = process("-X", "importtime", "-m", "selfsup", "status", "swept.yaml", cwd=folder)
    assert shown.code == 1, shown.err
    imported = {line.rpartition("|")[2].strip() for line in shown.err.splitlines()}
    assert "selfsup.sweeps.plans" in imported
    assert not HEAVY & imported

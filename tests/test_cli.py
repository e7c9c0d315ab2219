"""Every command as a user types it: its help, its exit codes, the text of its errors."""

import errno
import json
import os
import re
import shutil
import time
from importlib.metadata import version
from pathlib import Path

import jsonschema  # type: ignore[import-untyped]
import pytest
import yaml
from click import unstyle
from command_line import SPEC, Done, packed_folder, process, selfsup
from servers import free_ports
from typer.testing import CliRunner

from selfsup import cli
from selfsup.cli import app
from selfsup.errors import SpecError
from selfsup.knob import knob_lines
from selfsup.spec import run_type

ROOT = Path(__file__).parent.parent
PHOTOS = ROOT / "pipelines" / "photos"


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return packed_folder(tmp_path_factory.mktemp("cli"))


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("", ["shards", "plan", "run", "describe", "schema", "export", "ui", "submit", "SELFSUP_HOME"]),
        ("shards", ["pack", "index", "check"]),
        ("shards pack", ["SAMPLES_DIR", "OUT", "--resize", "--quality", "--shard-size"]),
        ("shards index", ["URL_OR_DIR", "--out"]),
        ("shards check", ["URL_OR_DIR"]),
        ("plan", ["SPECS", "--set", "-s", "PATH=VALUE"]),
        ("run", ["SPECS", "--set", "-s", "PATH=VALUE"]),
        ("describe", ["METHOD"]),
        ("schema", ["JSON"]),
        ("embed", ["RUN_OR_ENCODER", "SAMPLES_OR_SHARDS", "OUT.parquet", "--layers", "--crop", "--batch"]),
        ("export", ["RUN_OR_ENCODER", "--to", "timm", "torch", "hf", "onnx", "pt2", "mlflow", "--out"]),
        ("ui", ["--port", "5000"]),
        ("submit", ["SPECS", "--set", "--address", "RAY_API_SERVER_ADDRESS", "http://127.0.0.1:8265", "--wheel"]),
    ],
)
def test_help_names_every_argument_and_option(command: str, told: list[str]) -> None:
    done = CliRunner().invoke(app, [*command.split(), "--help"])
    assert done.exit_code == 0
    shown = unstyle(done.output).casefold()
    assert [word for word in told if word.casefold() not in shown] == []


def test_the_version_and_short_help() -> None:
    for argv in (["plan", "-h"], ["shards", "pack", "-h"], ["-h"]):
        assert CliRunner().invoke(app, argv).output == CliRunner().invoke(app, [*argv[:-1], "--help"]).output
    shown = process("-m", "selfsup", "--version", cwd=ROOT)
    assert shown == (0, f"selfsup {version('selfsup')}\n", "")


def test_help_and_recipes_wait_for_no_torch() -> None:
    script = "import sys; from selfsup.cli import app; app(sys.argv[1:], standalone_mode=False); print(*sys.modules)"
    for command in (["--help"], ["recipes"]):
        shown = process("-c", script, *command, cwd=ROOT)
        assert shown.code == 0, shown.err
        assert not {"torch", "ray", "mlflow"} & set(shown.out.splitlines()[-1].split())


def test_a_reader_lists_runs_without_torch_and_is_told_what_a_report_needs(tmp_path: Path) -> None:
    """As after `pip install --no-deps selfsup` and the few packages that README names."""
    without = "import sys; sys.modules.update(dict.fromkeys(['torch', 'ray', 'timm', 'scipy']))"
    script = f"{without}; import selfsup.cli as cli; cli.main()"
    shown = process("-c", script, "runs", cwd=tmp_path)
    assert shown == (0, f"no runs under {tmp_path / 'home'}\n", "")
    lacking = process("-c", script, "status", "demo", cwd=tmp_path)
    assert (lacking.code, lacking.out) == (1, "")
    assert lacking.err.startswith("selfsup: error[failed]: torch is not installed here; to install selfsup")


BAD_SPECS = {
    "a misspelt knob": ("hyper.mask_ration=0.5", "hyper.mask_ration: .*did you mean 'mask_ratio'"),
    "out of range": ("hyper.mask_ratio=1.5", "hyper.mask_ratio: .*1"),
    "tokens on a CNN": ("backbone={name: resnet18, image_size: 32}", "mae works on tokens, which resnet18 "),
    "a batch that does not divide over lanes": ("train.batch=12", "batch of 12 .*does not divide into 8 lanes"),
    "more workers than lanes": ("resources.workers=16", "more workers than lanes: 16 workers, 8 lanes"),
    "no such method": ("method=mea", "method: .*mae"),
}


@pytest.mark.parametrize(("override", "message"), BAD_SPECS.values(), ids=BAD_SPECS.keys())
def test_a_wrong_spec_exits_with_2(packed: Path, override: str, message: str) -> None:
    given = SPEC | {"backbone": {"image_size": 32}} if override.startswith("backbone") else SPEC
    (packed / "wrong.yaml").write_text(yaml.safe_dump(given))
    done = selfsup("plan", "wrong.yaml", "-s", override, cwd=packed)
    assert done.code == 2
    assert re.search(message, done.err), done.err
    assert "Traceback" not in done.err
    assert done.out == ""


def test_a_full_disk_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full() -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "home/runs/a.json")

    monkeypatch.setattr(cli, "app", full)
    told = (
        "selfsup: error[failed]: home/runs/a.json: No space left on device; make room, and the same command continues\n"
    )
    assert selfsup(cwd=tmp_path) == Done(1, "", told)


def test_a_spec_that_is_not_there(tmp_path: Path) -> None:
    done = selfsup("plan", "nowhere.yaml", cwd=tmp_path)
    assert done.code == 2
    assert "nowhere.yaml" in done.err
    assert "Traceback" not in done.err


def test_data_without_a_manifest_exits_with_3(packed: Path, tmp_path: Path) -> None:
    done = selfsup("plan", "tiny.yaml", "-s", f"data.train={tmp_path}", cwd=packed)
    assert done.code == 3
    assert done.err.startswith("selfsup: error[data]: ")
    assert str(tmp_path) in done.err
    assert "selfsup shards index" in done.err


def test_an_mlflow_server_that_does_not_answer_exits_with_5_before_anything_starts(packed: Path) -> None:
    (port,) = free_ports(1)
    started = time.monotonic()
    done = process("-m", "selfsup.cli", "run", "tiny.yaml", cwd=packed, MLFLOW_TRACKING_URI=f"http://127.0.0.1:{port}")
    assert done.code == 5, done.err
    assert f"127.0.0.1:{port}" in done.err.splitlines()[-1]
    assert "Traceback" not in done.err
    assert "Ray" not in done.err  # the line that its start makes
    assert not (packed / "home" / "stages").exists()
    assert time.monotonic() - started < 60  # 15 on an idle machine, most of them imports


def test_what_is_not_there_to_be_described_or_exported(tmp_path: Path) -> None:
    unknown = selfsup("describe", "simcrl", cwd=tmp_path)
    assert (unknown.code, unknown.out) == (2, "")
    assert "did you mean 'simclr'" in unknown.err
    (tmp_path / "home" / "runs").mkdir(parents=True)
    (tmp_path / "home" / "runs" / "mae-1234.json").write_text('{"pretrain": "pretrain-1"}')
    missing = selfsup("export", "mae-12", "--to", "timm", cwd=tmp_path)
    assert missing.code == 2
    assert "no run mae-12" in missing.err
    assert "mae-1234" in missing.err
    nothing = selfsup("embed", "mae-12", "photos", "out.parquet", cwd=tmp_path)
    assert (nothing.code, nothing.out, nothing.err) == (2, "", missing.err), "one line, and no progress bar"
    unfinished = selfsup("export", "mae-1234", "--to", "timm", cwd=tmp_path)
    assert unfinished.code == 4
    assert "has not finished training" in unfinished.err


def test_describe_lists_the_methods() -> None:
    shown = CliRunner().invoke(app, ["describe"]).output
    lines = {line.split()[0]: line for line in shown.splitlines()}
    assert "arXiv:2111.06377" in lines["mae"]
    assert "arXiv:2002.05709" in lines["simclr"]


def test_describe_tells_all_about_every_knob() -> None:
    shown = CliRunner().invoke(app, ["describe", "simclr"]).output.splitlines()
    lines = {line.split()[0]: line for line in reversed(shown) if line.strip()}
    temperature = lines["hyper.temperature"]
    for told in ("0.1", "τ", "> 0", "0.05 to 1, log", "softmax temperature"):
        assert told in temperature
    assert "required" in lines["data.train"]
    assert "adamw | sgd | lars" in lines["optim.name"]
    for knob in knob_lines(run_type("simclr")):
        assert knob.doc in lines[knob.path]


def test_describe_lists_the_evaluators() -> None:
    shown = CliRunner().invoke(app, ["describe", "--evals"]).output
    lines = {line.split()[0]: line for line in shown.splitlines() if line}
    assert lines["knn"].split()[1:7] == ["arXiv:1805.01978", "pooled", "top1", "%", "↑,", "top5"]
    assert lines["linear"].split()[1:7] == ["arXiv:2111.06377", "pooled", "top1", "%", "↑,", "lr"]
    assert " a grid of learning rates at once. lrs [0.0001, " in lines["linear"]
    assert lines["knn"].endswith(
        "frozen features. feature pooled, blocks 1, tower null, k 20, temperature 0.07, ks [], temperatures []"
    )


def test_describe_tells_all_about_an_evaluator() -> None:
    shown = CliRunner().invoke(app, ["describe", "--evals", "knn"]).output
    temperature = next(line for line in shown.splitlines() if line.startswith("evals.knn.temperature"))
    assert all(told in temperature for told in ("0.07", "τ", "> 0", "0.01 to 1, log", "fades with distance"))


def test_describe_shows_the_knobs_of_an_evaluator_of_the_users_own(tmp_path: Path) -> None:
    (file := tmp_path / "mine.py").write_text(
        "from selfsup import Evaluator, Knobs, Metric, knob\n\n\n"
        "class Mine(Evaluator):\n"
        "    metrics = {'score': Metric()}\n\n"
        "    class Hyper(Knobs):\n"
        "        power: float = knob(2.0, 'exponent', gt=0)\n\n"
        "    def __init__(self, hyper): ...\n"
        "    def run(self, features, *, seed, device='cpu'): ...\n"
    )
    shown = CliRunner().invoke(app, ["describe", "--evals", str(file)]).output.splitlines()
    assert shown[1].split() == ["evals.mine.power", "2.0", "number", ">", "0", "exponent"]


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["describe", "knn"], "no method is called 'knn' (an evaluator is: selfsup describe --evals knn)"),
        (["describe", "--evals", "knnn"], "no evaluator is called 'knnn' (did you mean 'knn'?)"),
        (["check-evaluator", "linaer"], "no evaluator is called 'linaer' (did you mean 'linear'?)"),
    ],
)
def test_a_name_that_is_none_is_told_what_is_near(command: list[str], message: str) -> None:
    refused = CliRunner().invoke(app, command)
    assert isinstance(refused.exception, SpecError)
    assert str(refused.exception) == message


def test_the_schema_is_one_and_takes_the_specs_of_this_repository() -> None:
    schema = json.loads(CliRunner().invoke(app, ["schema"]).output)
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    specs = {path.name: yaml.safe_load(path.read_text()) for path in PHOTOS.glob("*.yaml")}
    assert {"mae.yaml", "simclr.yaml"} <= specs.keys()
    for name in specs.keys() - {"common.yaml"}:
        assert list(validator.iter_errors(specs[name])) == []
    assert not validator.is_valid(specs["mae.yaml"] | {"hyper": {"mask_ration": 0.5}})
    assert not validator.is_valid(SPEC | {"train": {"duration": {"steps": "four"}}})


PLAN = """
import sys
from selfsup import cli
from selfsup.cli import app, main
app(["plan", *sys.argv[1:]], standalone_mode=False)
assert "ray" not in sys.modules and "mlflow" not in sys.modules
"""


def test_plan_needs_no_ray_and_starts_nothing(tmp_path: Path) -> None:
    told = ["-s", "train.duration={steps: 300}", "-s", "train.batch=64", "-s", "seeds=2"]
    done = process("-c", PLAN, str(PHOTOS / "mae.yaml"), *told, cwd=tmp_path)
    assert done.code == 0, done.err
    for text in ("4,000 samples", "960", "300 steps of 64: 19,200 samples, 4.8 epochs", "6 runs", "MiB"):
        assert text in done.out
    assert {path.name for path in (tmp_path / "home").iterdir()} == {"cache", "data"}  # what `bundled://` names


def test_plan_marks_what_is_done(packed: Path) -> None:
    before = selfsup("plan", "tiny.yaml", cwd=packed)
    assert "0 of them done" in before.out, before.err
    assert "train 16 samples in 3 shards, 16 labelled, 2 classes; val 16 samples in 3 shards, 16" in before.out
    assert re.search(r"mae-[0-9a-f]{12} +mae +seed 0 +pretrain, pictures, embed, knn", before.out)


def test_index_and_check_of_shards(packed: Path, tmp_path: Path) -> None:
    shutil.copytree(packed / "train", tmp_path / "mine")
    for path in (tmp_path / "mine").glob("manifest*"):
        path.unlink()
    indexed = selfsup("shards", "index", "mine", cwd=tmp_path)
    assert (indexed.code, indexed.out) == (0, "mine: 16 samples in 3 shards; 2 classes, all labelled\n")
    good = selfsup("shards", "check", "mine", cwd=tmp_path)
    assert (good.code, good.out) == (0, "mine: no problems\n")
    cut = tmp_path / "mine" / "000001.tar"
    size = cut.stat().st_size
    os.truncate(cut, size // 2)
    bad = selfsup("shards", "check", "mine", cwd=tmp_path)
    assert bad.code == 3
    assert f"000001.tar: {size // 2} bytes, not {size}: truncated or changed\n" in bad.out
    again = selfsup("shards", "index", "mine", cwd=tmp_path)
    assert again.code == 3
    assert "000001.tar" in again.err


def test_pack_names_what_it_leaves_out(packed: Path, tmp_path: Path) -> None:
    shutil.copytree(packed / "images", tmp_path / "images")
    (tmp_path / "images" / "a" / "torn.jpg").write_bytes(b"\xff\xd8 torn")
    done = selfsup("shards", "pack", "images", "out", cwd=tmp_path)
    assert done.code == 0
    assert done.out.startswith("out: 16 samples in 1 shard; 2 classes, all labelled")
    assert "left out, since it cannot be decoded: " in done.err
    assert "torn.jpg" in done.err
    missing = selfsup("shards", "pack", "nowhere", "out", cwd=tmp_path)
    assert missing.code == 3
    assert "nowhere" in missing.err

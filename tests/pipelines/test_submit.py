"""A real Ray head with token authentication: jobs run the wheel that was sent, beside an uploaded `platform/`."""

import json
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from ray_head import RAY, Head, get, ray_head
from servers import free_ports
from tiny import BACKBONE
from wheels import tiny_wheel

from selfsup.errors import SelfsupError, SpecError
from selfsup.pipelines.cluster.runtime_env import Extras
from selfsup.pipelines.cluster.submit import submit
from selfsup.pipelines.cluster.wheel import build_wheel
from selfsup.pipelines.data.pack import pack
from selfsup.sweeps.spec.sweepfile import command_for, read

ROOT = Path(__file__).parents[2]
BUILT = (".venv", ".git", ".*_cache", "build", "dist", "tests", "*.egg-info", "__pycache__")
SEEN = """
import pathlib, ray
ray.init(log_to_driver=False)

@ray.remote(num_cpus=0.5)
def seen():
    import platform, selfsup.pipelines.data.order
    return selfsup.pipelines.data.order.__file__, platform.system()

print("SEEN", *ray.get(seen.remote()), pathlib.Path("platform").is_dir())
"""


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    with ray_head() as running:
        yield running


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """The smallest of runs: 4 steps of a ViT of one block, over 32 images."""
    folder = tmp_path_factory.mktemp("sets")
    for split, number in (("train", 32), ("val", 8)):
        draw = np.random.default_rng(number)
        for each in range(number):
            path = folder / split / "ab"[each % 2] / f"{each}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(draw.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(path)
        pack(folder / split, folder / f"{split}-shards")
    return {
        "name": "tiny",
        "method": "simclr",
        "data": {"train": str(folder / "train-shards"), "val": str(folder / "val-shards")},
        "backbone": BACKBONE,
        "train": {"duration": {"steps": 4}, "batch": 8},
        "evals": {"knn": {"k": 3}},
        "baselines": False,
        "resources": {"cpus_per_worker": 0.9, "data_cpus": 0.1},
    }


def finished(home: Path) -> set[str]:
    return {path.parent.name.split("-")[0] for path in (home / "stages").glob("*/done.json")}


@pytest.mark.slow
def test_submit_sends_streams_and_ends_as_the_job_does(head: Head, spec: dict[str, object], tmp_path: Path) -> None:
    (tmp_path / "tiny spec.yaml").write_text(yaml.safe_dump(spec))
    argv = [sys.executable, "-m", "selfsup.cli", "submit", "tiny spec.yaml", "--address", head.address, *SHARED]
    told = {name: value for name, value in head.environment.items() if name != "RAY_AUTH_MODE"}  # the token is enough
    done = Head(head.address, told).call(*argv, cwd=tmp_path)
    assert done.returncode == 0, done.stdout
    assert "knn top-1" in done.stdout  # the table, which the job prints last
    assert finished(Path(head.environment["SELFSUP_HOME"])) == {"pretrain", "embed", "knn"}


@pytest.mark.slow
def test_a_sweep_is_submitted_with_what_it_extends_and_ends_with_its_report(
    head: Head, spec: dict[str, object], tmp_path: Path
) -> None:
    path = sweep_of(spec, tmp_path)
    argv = [
        sys.executable,
        "-m",
        "selfsup.cli",
        "submit",
        str(path),
        "--address",
        head.address,
        *SHARED,
        "-s",
        "seeds=[7]",
    ]
    done = head.call(*argv, cwd=tmp_path)
    assert done.returncode == 0, done.stdout
    assert "temperature, knn top-1" in done.stdout  # the verdict
    [report] = Path(head.environment["SELFSUP_HOME"]).glob("reports/tiny-*/report.html")
    assert "selfsup sweep sweeps/swept.yaml -s &#39;seeds=[7]&#39;" in report.read_text()
    assert "2 of 2 done" in report.read_text()


OWN_EVALUATION = """from selfsup import Evaluator, Knobs, Metric

class Spread(Evaluator):
    target, metrics = None, {"spread": Metric(unit="", better="min")}
    Hyper = type("Hyper", (Knobs,), {})

    def __init__(self, hyper): pass

    def run(self, features, *, seed, device="cpu"):
        yield "spread", float(features.val.std(axis=0).mean())
"""


@pytest.mark.slow
def test_a_job_takes_files_of_an_objective_and_an_evaluation_along(
    head: Head, spec: dict[str, object], tmp_path: Path
) -> None:
    (tmp_path / "mine.py").write_text((ROOT / "methods" / "simclr.py").read_text())
    (tmp_path / "spread.py").write_text(OWN_EVALUATION)
    own = spec | {"method": "./mine.py", "evals": {"own": {"use": "./spread.py"}}}
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(own))
    home = tmp_path / "home"
    environment = head.environment | {"SELFSUP_HOME": str(home)}
    argv = [sys.executable, "-m", "selfsup.cli", "submit", "own.yaml", "--address", head.address, *SHARED]
    done = Head(head.address, environment).call(*argv, cwd=tmp_path)
    assert done.returncode == 0, done.stdout
    assert finished(home) == {"pretrain", "embed", "spread"}
    [record] = (home / "runs").glob("mine-*.json")
    assert str(tmp_path) not in json.loads(record.read_text())["run"]["method"]  # the job ran its copy


def declaring(wheel: Path, dependency: str) -> Path:
    """The wheel as `pip wheel` makes it, which declares dependencies."""
    path = wheel.with_name("ordinary") / wheel.name
    path.parent.mkdir()
    with zipfile.ZipFile(wheel) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            declared = f"\nRequires-Dist: {dependency}\n\n".encode()
            data = old.read(name)
            new.writestr(name, data.replace(b"\n\n", declared, 1) if name.endswith("/METADATA") else data)
    return path


@pytest.mark.slow
def test_a_job_of_its_own_name_is_left_alone_with_a_package_a_variable_and_an_ordinary_wheel(
    head: Head, spec: dict[str, object], tmp_path: Path
) -> None:
    (tmp_path / "my_lab").mkdir()
    (tmp_path / "my_lab" / "__init__.py").write_text("")
    (tmp_path / "my_lab" / "methods.py").write_text((ROOT / "methods" / "simclr.py").read_text())
    reading = OWN_EVALUATION.replace(
        "float(features.val.std(axis=0).mean())", "float(len(__import__('os').environ['KEY']))"
    )
    (tmp_path / "my_lab" / "evals.py").write_text(reading)
    own = spec | {"method": "my_lab.methods:SimCLR2", "evals": {"own": {"use": "my_lab.evals:Spread"}}}
    text = (tmp_path / "my_lab" / "methods.py").read_text()
    (tmp_path / "my_lab" / "methods.py").write_text(text.replace("class SimCLR(", "class SimCLR2("))
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(own))
    wheel = declaring(build_wheel(ROOT, tmp_path / "built"), "no-such-package-anywhere==1")
    home = tmp_path / "home"
    environment = head.environment | {"SELFSUP_HOME": str(home), "KEY": "seventeen letters"}
    argv = [sys.executable, "-m", "selfsup.cli", "submit", "own.yaml", "--address", head.address, *SHARED, "--no-wait"]
    argv += ["--name", "a-job", "--env", "KEY", "--py-modules", "my_lab", "--wheel", str(wheel)]
    head = Head(head.address, environment)
    sent = head.call(*argv, cwd=tmp_path)
    assert sent.returncode == 0, sent.stdout
    assert f"{head.address}/#/jobs/a-job" in sent.stdout
    [follow] = [line.partition(":")[2] for line in sent.stdout.splitlines() if line.startswith("its log:")]
    done = head.call("bash", "-c", follow, cwd=tmp_path)
    assert "knn" not in done.stdout
    assert finished(home) == {"pretrain", "embed", "spread"}, done.stdout
    [result] = (home / "stages").glob("spread-*/done.json")
    assert json.loads(result.read_text())["result"]["spread"] == 17
    assert "seventeen letters" not in sent.stdout + done.stdout
    again = head.call(*argv, cwd=tmp_path)
    assert "it has had a job of this name; give another --name" in again.stdout


@pytest.mark.slow
def test_the_dashboard_shows_runs_by_study_arm_and_seed_and_their_numbers(
    head: Head, spec: dict[str, object], tmp_path: Path
) -> None:
    longer = spec | {"train": {"duration": {"steps": 400}, "batch": 8, "log_every": 5}}
    path, metrics = sweep_of(longer, tmp_path), ""
    environment = head.environment | {"SELFSUP_HOME": str(tmp_path / "home")}
    argv = [sys.executable, "-m", "selfsup.cli", "submit", str(path), "--address", head.address, *SHARED]
    with (tmp_path / "log").open("w") as log:
        job = subprocess.Popen([*argv, "--name", "watched"], env=environment, stdout=log, stderr=log)
        while job.poll() is None and "ray_selfsup_input_wait{" not in metrics:
            metrics = get(f"http://127.0.0.1:{head.metrics_port}/metrics")
            time.sleep(0.5)
        job.wait()
    assert job.returncode == 0, (tmp_path / "log").read_text()
    for name in ("loss", "samples_per_second", "input_wait"):
        [line, *_] = [line for line in metrics.splitlines() if line.startswith(f"ray_selfsup_{name}{{")]
        assert 'study="simclr"' in line
        assert 'seed="0"' in line
        assert 'run="simclr, ' in line
        assert float(line.rpartition(" ")[2]) >= 0
    token = Path(head.environment["RAY_AUTH_TOKEN_PATH"]).read_text()
    runs = json.loads(get(f"{head.address}/api/train/v2/runs/v1", token))["train_runs"]
    assert "slot" in {run["name"] for run in runs}, "one after the other, a slot trains them"
    details = json.loads(get(f"{head.address}/api/jobs/watched", token))
    assert details["metadata"]["job_name"] == "watched"
    assert details["metadata"]["command"] == "selfsup sweep sweeps/swept.yaml"


@pytest.mark.slow
def test_submit_fails_as_the_job_does(head: Head, spec: dict[str, object], tmp_path: Path) -> None:
    wrong = spec | {"data": {"train": str(tmp_path / "nowhere"), "val": str(tmp_path / "nowhere")}}
    (tmp_path / "wrong.yaml").write_text(yaml.safe_dump(wrong))
    done = head.call(
        sys.executable, "-m", "selfsup.cli", "submit", "wrong.yaml", "--address", head.address, cwd=tmp_path
    )
    assert done.returncode == 1, done.stdout
    assert "there is no such folder" in done.stdout
    assert "Traceback" not in done.stdout


@pytest.mark.slow
def test_the_documented_ray_job_submit_from_the_root(head: Head, spec: dict[str, object], tmp_path: Path) -> None:
    root = shutil.copytree(ROOT, tmp_path / "root", ignore=shutil.ignore_patterns(*BUILT))
    build_wheel(root, root / "dist")
    (root / "tiny.yaml").write_text(yaml.safe_dump(spec))
    (root / "seen.py").write_text(SEEN)
    documented = [RAY, "job", "submit", "--address", head.address, "--working-dir", "."]
    documented += ["--runtime-env", "infra/runtime-env.yaml", "--"]
    home = tmp_path / "home"
    ran = head.call(*documented, "env", f"SELFSUP_HOME={home}", *RUN, "tiny.yaml", cwd=root)
    assert ran.returncode == 0, ran.stdout
    assert finished(home) == {"pretrain", "embed", "knn"}
    swept = sweep_of(spec, root).relative_to(root)
    ran = head.call(*documented, "env", f"SELFSUP_HOME={home}", "selfsup", "sweep", str(swept), cwd=root)
    assert ran.returncode == 0, ran.stdout
    assert "2 of 2 done" in (home / "reports" / "tiny" / "report.html").read_text()
    assert len(list((home / "stages").glob("pretrain-*/done.json"))) == 2  # the default was there already
    found = head.call(*documented, "python", "seen.py", cwd=root)
    [line] = [line for line in found.stdout.splitlines() if line.startswith("SEEN")]
    _, imported, system, folder_platform = line.split()
    assert "runtime_resources/py_modules_files" in imported  # the wheel: not the checkout, not the uploaded folder
    assert (system, folder_platform) == ("Linux", "True")


def sweep_of(spec: dict[str, object], folder: Path) -> Path:
    """A sweep of two arms that extends the spec, which lies in another folder."""
    (folder / "sweeps").mkdir(exist_ok=True)
    (folder / "specs").mkdir(exist_ok=True)
    (folder / "specs" / "tiny.yaml").write_text(yaml.safe_dump(spec))
    path = folder / "sweeps" / "swept.yaml"
    path.write_text("extends: ../specs/tiny.yaml\nablate: {hyper.temperature: [0.1, 0.5]}\n")
    return path


SHARED = ("--shared", tempfile.gettempdir())
RUN = ("python", "-m", "selfsup.cli", "run")


@pytest.mark.parametrize("token", [None, "another-token-0123456789"])
def test_without_its_token_a_cluster_refuses(
    head: Head, spec: dict[str, object], token: str | None, tmp_path: Path
) -> None:
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(spec))
    environment = {name: value for name, value in head.environment.items() if not name.startswith("RAY_")}
    environment |= {"HOME": str(tmp_path)} | ({"RAY_AUTH_TOKEN": token} if token else {})
    argv = [sys.executable, "-m", "selfsup.cli", "submit", "tiny.yaml", "--address", head.address, *SHARED]
    argv += ["--wheel", str(tiny_wheel(tmp_path))]
    done = Head(head.address, environment).call(*argv, cwd=tmp_path)
    assert done.returncode == 1, done.stdout
    told = done.stdout.splitlines()[-1]
    assert told.startswith("selfsup: ")
    assert "RAY_AUTH_TOKEN" in told


def test_nobody_answers(spec: dict[str, object], tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(spec))
    [port] = free_ports(1)
    with pytest.raises(SelfsupError, match=rf"no job server of Ray .*//127\.0\.0\.1:{port}") as caught:
        submit(
            "run",
            [tmp_path / "tiny.yaml"],
            [],
            address=f"http://127.0.0.1:{port}",
            name="tiny",
            extras=Extras(wheel=tiny_wheel(tmp_path)),
        )
    assert "\n" not in str(caught.value)


def test_a_sweep_goes_alone_and_by_its_own_command(spec: dict[str, object], tmp_path: Path) -> None:
    (plain := tmp_path / "plain.yaml").write_text(yaml.safe_dump(spec))
    swept = sweep_of(spec, tmp_path)
    assert command_for([read(plain, []), read(plain, [])]) == "run"
    assert command_for([read(swept, ["seeds=2"])]) == "sweep"
    with pytest.raises(SpecError, match=r"swept\.yaml: a sweep is a job of its own"):
        command_for([read(plain, []), read(swept, [])])

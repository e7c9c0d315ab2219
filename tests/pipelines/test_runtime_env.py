"""What travels along with a job, and what is refused before anything is sent."""

from pathlib import Path

import pytest
import yaml

from selfsup.errors import SpecError
from selfsup.pipelines.cluster.runtime_env import Extras, own_packages, runtime_env
from selfsup.pipelines.cluster.shared_paths import check_visible
from selfsup.sweeps.spec.sweepfile import trees

SPEC = {
    "name": "tiny",
    "method": "simclr",
    "data": {"train": "s3://bucket/train", "val": "bundled://digits/val"},
    "train": {"duration": {"steps": 4}, "batch": 8},
    "evals": {"knn": {}},
}


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SELFSUP_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MY_KEY", "hunter2")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def test_variables_are_sent_by_name_and_no_message_holds_a_value(tmp_path: Path) -> None:
    environment = runtime_env(Extras(("MY_KEY",)), tmp_path / "specs", "abc+")
    assert environment == {
        "working_dir": str(tmp_path / "specs"),
        "py_modules": [],
        "env_vars": {"SELFSUP_HOME": str(tmp_path / "home"), "MY_KEY": "hunter2", "SELFSUP_COMMIT": "abc+"},
    }
    with pytest.raises(SpecError, match="--env MY_KEI: not set here") as caught:
        runtime_env(Extras(("MY_KEY", "MY_KEI")), tmp_path, "abc+")
    assert "hunter2" not in str(caught.value)


def test_a_file_of_rays_settings_is_merged(tmp_path: Path) -> None:
    theirs = {
        "pip": ["my-lab"],
        "env_vars": {"NCCL_DEBUG": "INFO", "MY_KEY": "hunter2"},
        "py_modules": ["s3://b/x.zip"],
    }
    (tmp_path / "env.yaml").write_text(yaml.safe_dump(theirs))
    extras = Extras(("MY_KEY",), [tmp_path / "my_lab"], Path("env.yaml"))
    assert runtime_env(extras, tmp_path / "specs", "abc") == {
        "pip": ["my-lab"],
        "working_dir": str(tmp_path / "specs"),
        "py_modules": [str(tmp_path / "my_lab"), "s3://b/x.zip"],
        "env_vars": {
            "NCCL_DEBUG": "INFO",
            "MY_KEY": "hunter2",
            "SELFSUP_HOME": str(tmp_path / "home"),
            "SELFSUP_COMMIT": "abc",
        },
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("working_dir: .", "env.yaml: working_dir: .*--py-modules"),
        ("env_vars: {MY_KEY: swordfish}", r"env.yaml: env_vars\.MY_KEY: "),
        ("env_vars: {SELFSUP_HOME: /elsewhere}", r"env.yaml: env_vars\.SELFSUP_HOME: "),
        ("env_vars: {THREADS: 4}", "env.yaml: env_vars: .*quote"),
        ("py_modules: my_lab", "env.yaml: py_modules: expected a list"),
        ("- pip", "env.yaml: expected a mapping"),
        ("pip: [", "env.yaml: cannot be read"),
    ],
)
def test_settings_that_contradict_the_job_are_refused(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "env.yaml").write_text(text)
    with pytest.raises(SpecError, match=message) as caught:
        runtime_env(Extras(("MY_KEY",), settings=Path("env.yaml")), tmp_path, "abc")
    assert not any(secret in str(caught.value) for secret in ("hunter2", "swordfish"))


def test_packages_are_found_by_folder_and_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.path", [*__import__("sys").path])
    (package := tmp_path / "project" / "src" / "my_lab_of_tests").mkdir(parents=True)
    (package / "__init__.py").write_text("value = 7")
    with pytest.raises(
        SpecError, match=r"no __init__\.py in it; name the folder that is imported, such as .*my_lab_of"
    ):
        own_packages(["project"])
    assert own_packages(["project/src/my_lab_of_tests"]) == (package,)
    assert __import__("my_lab_of_tests").value == 7, "what a spec names of it can be checked before it is sent"
    assert own_packages(["my_lab_of_tests"]) == (package,)
    with pytest.raises(SpecError, match="nowhere_to_be_found: neither a folder"):
        own_packages(["nowhere_to_be_found"])


def problems(spec: dict[str, object], *shared: str, overrides: tuple[str, ...] = ()) -> str:
    Path("spec.yaml").write_text(yaml.safe_dump(SPEC | spec))
    try:
        check_visible(trees(Path("spec.yaml"), overrides), [Path(folder) for folder in shared])
    except SpecError as error:
        return str(error)
    return ""


def test_data_that_all_nodes_see_may_be_sent(tmp_path: Path) -> None:
    (data := tmp_path / "data").mkdir()
    assert problems({}) == ""
    assert problems({"data": {"train": "/of/the/cluster/alone"}}) == ""
    assert problems({"data": {"train": str(data)}}, str(tmp_path)) == ""
    (tmp_path / "home" / "shards").mkdir(parents=True)
    assert problems({"data": {"train": str(tmp_path / "home" / "shards")}}) == ""


def test_data_of_this_machine_are_refused_with_their_place(tmp_path: Path) -> None:
    (data := tmp_path / "data").mkdir()
    assert f"data.train: {data} is on this machine" in (message := problems({"data": {"train": str(data)}}))
    assert message.startswith("spec.yaml:2:10: ")
    assert f"--shared {tmp_path}" in message
    assert problems({"data": {"train": str(data)}}, str(tmp_path / "dat"))  # no parent of it


@pytest.mark.parametrize(
    ("spec", "overrides", "where"),
    [
        ({"data": {"train": "../shards"}}, (), "data.train"),
        ({}, ("data.val=shards/val",), "data.val"),
        ({"backbone": {"weights": "mae.safetensors"}}, (), "backbone.weights"),
        ({"evals": {"knn": {"data": {"train": "a", "val": "s3://b/c"}}}}, (), "evals.knn.data.train"),
        ({"ablate": {"data.train": ["s3://bucket/other", "other"]}}, (), "data.train"),
        ({"ablate": {"data": {"train": ["s3://bucket/other", "other"]}}}, (), "data.train"),
        ({"studies": [{"name": "one"}, {"name": "two", "data": {"train": "~/two"}}]}, (), "data.train"),
    ],
)
def test_relative_paths_are_refused(spec: dict[str, object], overrides: tuple[str, ...], where: str) -> None:
    message = problems(spec, "/", overrides=overrides)
    assert f"{where}: " in message
    assert "no such relative path; give a URL" in message
    assert message.count("no such relative path") == 1

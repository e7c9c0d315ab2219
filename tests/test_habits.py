"""The files that hosts of repositories read are what they should be."""

import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).parent.parent
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


def test_the_version_is_one_and_the_changelog_has_it() -> None:
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == VERSION
    assert f"\n## [{VERSION}]" in (ROOT / "CHANGELOG.md").read_text()
    assert f"selfsup-{VERSION}-" in (ROOT / "infra" / "runtime-env.yaml").read_text()


def test_a_host_runs_what_a_submission_must_pass() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    steps = [step.get("run") for job in workflow["jobs"].values() for step in job["steps"]]
    assert "bash .ci/run" in steps
    assert (ROOT / ".ci" / "run").exists()


def test_templates_and_hooks_are_yaml_that_says_something() -> None:
    for path in (ROOT / ".github" / "ISSUE_TEMPLATE").iterdir():
        form = yaml.safe_load(path.read_text())
        assert form["name"]
        assert all(part["attributes"]["label"] for part in form["body"])
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert [hook["entry"].split()[:2] for hook in repository["hooks"]] == [
        [".venv/bin/ruff", "check"],
        [".venv/bin/ruff", "format"],
    ]


def test_the_lock_names_no_host() -> None:
    assert "://" not in (ROOT / "infra" / "requirements.lock").read_text()

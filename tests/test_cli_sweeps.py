"""The commands of sweeps as a user types them: what is refused, and what they say before anything ran."""

import json
from pathlib import Path

import pytest
import yaml
from command_line import SPEC, packed_folder, selfsup


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a sweep of two arms beside a spec."""
    packed = packed_folder(tmp_path_factory.mktemp("cli"))
    ablate = {"ablate": {"hyper.mask_ratio": [0.5, 0.75]}, "baselines": False}
    (packed / "swept.yaml").write_text(yaml.safe_dump(SPEC | ablate))
    return packed


def test_a_sweep_is_not_run_and_the_right_command_is_told(swept: Path) -> None:
    done = selfsup("run", "tiny.yaml", "swept.yaml", cwd=swept)
    assert (done.code, done.out) == (2, "")
    assert "swept.yaml: a sweep" in done.err
    assert "`selfsup sweep swept.yaml`" in done.err


def test_a_sweep_is_submitted_alone_and_whole(swept: Path) -> None:
    together = selfsup("submit", "tiny.yaml", "swept.yaml", cwd=swept)
    assert together.code == 2
    assert "swept.yaml: a sweep is a job of its own" in together.err
    wrong = selfsup("submit", "swept.yaml", "-s", "ablate.hyper.mask_ration=[0.5]", cwd=swept)
    assert wrong.code == 2
    assert "did you mean 'mask_ratio'?" in wrong.err


def test_status_of_what_has_not_begun_exits_with_1(swept: Path) -> None:
    done = selfsup("status", "swept.yaml", cwd=swept)
    assert done.code == 1
    head, *lines = done.out.splitlines()
    assert head == "0 done, 0 running, 0 failed, 2 pending"
    assert [line.split()[:6] for line in lines] == [
        ["mae:", arm, "seed", "0", "pending", key]
        for arm, key in zip(["default", "mask_ratio=0.5"], ids(swept), strict=True)
    ]
    nowhere = selfsup("status", "nowhere.yaml", cwd=swept)
    assert nowhere.code == 2
    assert "nowhere.yaml" in nowhere.err


def test_a_report_of_no_sweep_opens_no_store(tmp_path: Path) -> None:
    done = selfsup("report", "nowhere.yaml", cwd=tmp_path)
    assert done.code == 2
    assert not (tmp_path / "home").exists()


def ids(swept: Path) -> list[str]:
    told = selfsup("status", "swept.yaml", "--json", cwd=swept)
    assert told.code == 1
    return [entry["id"] for entry in json.loads(told.out)]


def test_one_run_is_not_compared_and_no_unknown_one(swept: Path) -> None:
    alone = selfsup("compare", "mae-1", "mae-1", cwd=swept)
    assert (alone.code, alone.out) == (2, "")
    assert "two runs or more" in alone.err
    unknown = selfsup("compare", "mae-1", "mae-2", cwd=swept)
    assert (unknown.code, unknown.out) == (2, "")
    assert "no run mae-1; there is none yet" in unknown.err


def test_the_json_of_a_plan_and_a_status(swept: Path) -> None:
    shown = selfsup("plan", "swept.yaml", "tiny.yaml", "--json", cwd=swept)
    assert shown.code == 0, shown.err
    runs = json.loads(shown.out)
    assert [(run["sweep"], run["study"], run["arm"], run["steps"], run["status"]) for run in runs] == [
        ("tiny", "mae", "default", 4, "pending"),
        ("tiny", "mae", "mask_ratio=0.5", 4, "pending"),
        *(("tiny", "", arm, 0, "pending") for arm in ("raw pixels", "random encoder")),
        ("tiny", "mae", "default", 4, "pending"),
    ]
    assert runs[0]["stages"] == {"pretrain": False, "pictures": False, "embed": False, "eval/knn": False}
    (entry, _) = json.loads(selfsup("status", "swept.yaml", "--json", cwd=swept).out)
    assert entry == {name: runs[0][name] for name in entry}
    assert entry.keys() == {"study", "arm", "seed", "id", "status", "why", "kind", "metrics"}


@pytest.mark.parametrize(("name", "arms"), [("swept.yaml", "2 arms"), ("tiny.yaml", "1 arm")])
def test_an_unknown_run_of_a_sweep_is_refused_before_anything_starts(swept: Path, name: str, arms: str) -> None:
    """A spec without axes is a sweep of one arm."""
    done = selfsup("sweep", name, "--only", "mae-1", cwd=swept)
    assert done.code == 2
    assert f"mae: {arms} x 1 seed" in done.out
    assert ("one setting: `ablate: {PATH: [VALUE, VALUE]}` in the spec" in done.out) is (arms == "1 arm")
    assert "no run is called mae-1" in done.err
    assert not (swept / "home" / "stages").exists()


def test_a_report_can_be_made_before_anything_ran(swept: Path) -> None:
    done = selfsup("report", "swept.yaml", cwd=swept)
    assert done.code == 0, done.err
    assert "mask ratio, knn top-1: no results yet." in done.out
    page = (swept / "home" / "reports" / "tiny" / "report.html").read_text()
    assert "0 of 2 done, 2 missing" in page
    other = selfsup("report", "swept.yaml", "-s", "seeds=2", cwd=swept)
    assert other.code == 0, other.err
    [beside] = (swept / "home" / "reports").glob("tiny-*/report.html")
    assert f"the report:      {beside}" in other.out
    assert "0 of 4 done" in beside.read_text()
    assert (swept / "home" / "reports" / "tiny" / "report.html").read_text() == page, "it is of another plan, and stays"

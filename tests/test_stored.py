"""The runs of a store as `selfsup runs` lists them, and the names that commands take."""

import fcntl
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import selfsup
from stores import KNN, LINEAR, add_record, add_run, add_stage

from selfsup.errors import SpecError
from selfsup.sweeps.listing import volume
from selfsup.sweeps.stored import StoredRun, chosen, headline, joined, selected, stored
from selfsup.track import Tracker


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, local_store: Callable[[Path], Tracker]) -> Path:
    """A folder whose `home` holds a sweep, a plain spec, a killed run, a trial and a run that MLflow does not know."""
    top = tmp_path_factory.mktemp("stored")
    home = top / "home"
    home.mkdir()
    tracker = local_store(home)
    for seed in (0, 1):
        add_run(tracker, f"mae-d{seed}", study="mae", arm="default", seed=seed, knn=70.0 + seed)
        add_record(home, f"mae-d{seed}", [f"pretrain-d{seed}", "embed-shared"], seed=seed)
        add_stage(home, f"pretrain-d{seed}", 3000)
    add_stage(home, "embed-shared", 500)
    add_run(tracker, "mae-m0", "FAILED", study="mae", arm="mask_ratio=0.9", reason="non-finite: loss")
    add_run(tracker, "untrained-u0", study="baselines", arm="random encoder", knn=40.0)
    add_run(tracker, "mae-k0", "RUNNING", study="mae", arm="mask_ratio=0.5")
    add_record(home, "mae-k0", ["pretrain-k0"])
    add_stage(home, "pretrain-k0", done=False)
    add_run(tracker, "arm-1", study="mae", arm="default", kind="arm")
    add_run(tracker, "simclr-t1", study="simclr", arm="", kind="trial", sweep="search", knn=50.0)
    add_run(tracker, "simclr-p0", sweep="simclr", knn=60.0)
    add_run(tracker, "simclr-p1", sweep="simclr", knn=61.0)
    add_record(home, "vicreg-n0", ["pretrain-n0"], spec="birds", seed=3)
    add_stage(home, "pretrain-n0", done=False)
    return top


@pytest.fixture
def runs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[StoredRun]:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return stored(folder / "home")


def test_each_run_is_listed_with_name_status_numbers_and_size(runs: list[StoredRun]) -> None:
    by_id = {run.id: run for run in runs}
    assert {run.id: (run.name, run.status) for run in runs} == {
        "mae-d0": ("flowers/mae/default:0", "done"),
        "mae-d1": ("flowers/mae/default:1", "done"),
        "mae-m0": ("flowers/mae/mask_ratio=0.9:0", "failed"),
        "mae-k0": ("flowers/mae/mask_ratio=0.5:0", "pending"),
        "untrained-u0": ("flowers/baselines/random encoder:0", "done"),
        "simclr-t1": ("search/simclr/simclr-t1:0", "done"),
        "simclr-p0": ("simclr:0", "done"),
        "simclr-p1": ("simclr:0", "done"),
        "vicreg-n0": ("birds/vicreg:3", "pending"),
    }
    assert by_id["mae-d1"].metrics == {KNN: 71.0, LINEAR: 76.0}
    assert [len(by_id[key].stages) for key in ("mae-d0", "vicreg-n0", "untrained-u0")] == [2, 1, 0]
    assert by_id["mae-m0"].why == "non-finite: loss"
    assert by_id["mae-k0"].why == "was interrupted"
    assert [run.ended or run.began for run in runs] == sorted((run.ended or run.began for run in runs), reverse=True)


@pytest.mark.usefixtures("runs")
def test_a_run_whose_stage_is_locked_runs(folder: Path) -> None:
    with (folder / "home/stages/pretrain-k0/lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert {run.id for run in stored(folder / "home") if run.status == "running"} == {"mae-k0"}


@pytest.mark.parametrize(
    "name",
    [
        "mae-d1",
        "flowers/mae/default:1",
        "flowers/default:1",
        "mae/default:1",
        "default:1",
        "flowers/mae:1",
        "mae:1",
        "flowers:1",
    ],
)
def test_a_run_goes_by_its_id_and_by_any_part_of_its_name(runs: list[StoredRun], name: str) -> None:
    assert chosen(runs, name) == "mae-d1"


def test_a_seed_may_be_left_out_where_there_is_one(runs: list[StoredRun]) -> None:
    assert chosen(runs, "flowers/mask_ratio=0.9") == "mae-m0"
    assert chosen(runs, "random encoder") == "untrained-u0"
    assert chosen(runs, "birds/vicreg") == "vicreg-n0"
    with pytest.raises(SpecError, match="mae: 2 runs go by that name; give the id of one:\n  mae-d"):
        chosen(runs, "mae")


def test_an_unknown_name_is_told_its_neighbors(runs: list[StoredRun]) -> None:
    with pytest.raises(SpecError) as caught:
        chosen(runs, "flowers/random encoder:1")
    assert str(caught.value).startswith(
        "no run flowers/random encoder:1; the nearest are 'flowers/baselines/random enc"
    )
    with pytest.raises(SpecError, match="no run mae:0; there is none yet"):
        chosen([], "mae:0")


def test_a_name_that_several_runs_have_is_refused(runs: list[StoredRun]) -> None:
    with pytest.raises(SpecError, match="simclr:0: 2 runs go by that name") as caught:
        chosen(runs, "simclr:0")
    assert all(key in str(caught.value) for key in ("simclr-p0", "simclr-p1"))


def test_a_whole_name_is_of_its_run_alone(runs: list[StoredRun]) -> None:
    """One of `selfsup run` is PLACE/METHOD:SEED, which a sweep's default arm of the same place goes by, too."""
    run = next(run for run in runs if run.id == "mae-d1")
    alone = run._replace(id="a", name="flowers/mae:1", sweep="flowers", study="", arm="mae")
    default = run._replace(id="b", name="flowers/mae/default:1", sweep="flowers", study="mae", arm="default")
    assert chosen([default, alone], "flowers/mae:1") == "a"
    assert chosen([alone, default], "flowers/mae/default:1") == "b"


def test_a_run_of_a_plain_spec_goes_by_its_name_in_the_sweep_that_the_spec_becomes(runs: list[StoredRun]) -> None:
    alone = runs[0]._replace(id="a", name="flowers/mae:1", sweep="flowers", study="", arm="mae", seed=1)
    assert [chosen([alone], name) for name in ("flowers/mae/default:1", "mae/default:1", "flowers/mae:1")] == ["a"] * 3
    swept = alone._replace(id="b", name="flowers/mae/default:1", study="mae", arm="default")
    assert [chosen([swept], name) for name in ("flowers/mae/default:1", "flowers/mae:1")] == ["b"] * 2


def test_runs_are_selected_by_parts_of_names_and_by_status(runs: list[StoredRun]) -> None:
    assert {run.id for run in selected(runs, ["default", "vicreg-n"])} == {"mae-d0", "mae-d1", "vicreg-n0"}
    assert {run.id for run in selected(runs, ["mask*:0"])} == {"mae-m0", "mae-k0"}
    assert {run.id for run in selected(runs, ["flowers"], "failed")} == {"mae-m0"}
    assert selected(runs, []) == runs
    listed = [run._replace(name="adam/mae/betas=[0.9, 0.95]:0") for run in runs[:1]]
    assert selected(listed, ["betas=[0.9"]) == listed


def test_the_table_and_its_json(folder: Path) -> None:
    shown = selfsup("runs", "default", cwd=folder)
    assert shown.code == 0, shown.err
    head, *lines, _, together = shown.out.splitlines()
    assert head.split() == ["run", "id", "status", "knn", "top-1", "linear", "top-1", "size", "time"]
    assert {(*line.split()[:6],) for line in lines} == {
        ("flowers/mae/default:0", "mae-d0", "done", "70.00", "75.00", "3.42"),
        ("flowers/mae/default:1", "mae-d1", "done", "71.00", "76.00", "3.42"),
    }
    assert together == f"2 runs: 2 done; 6.35 KiB in {folder / 'home'}"  # 3000 + 3000 + 500, shared once
    (last,) = json.loads(selfsup("runs", "vicreg", "--json", cwd=folder).out)
    assert last.keys() == {*StoredRun._fields, "bytes"}
    assert (last["name"], last["seed"], last["bytes"]) == ("birds/vicreg:3", 3, 1000)
    assert len(json.loads(selfsup("runs", "--last", "2", "--json", cwd=folder).out)) == 2


def test_runs_are_compared_by_name(folder: Path) -> None:
    shown = selfsup("compare", "mae:0", "flowers/default:1", cwd=folder)
    assert shown.code == 0, shown.err
    assert f"{KNN}     70             71 (+1)".split() in [line.split() for line in shown.out.splitlines()]
    data = json.loads(selfsup("compare", "mae:0", "mae:1", "--json", cwd=folder).out)
    assert [run["id"] for run in data["runs"]] == ["mae-d0", "mae-d1"]
    assert data["runs"][0]["metrics"][KNN] == 70.0
    assert KNN in data["differing"]
    assert "eval/knn/images" not in data["differing"]


def test_an_encoder_is_exported_by_name(folder: Path) -> None:
    """Its training is not there; that it is looked for shows that the name was understood."""
    missing = selfsup("export", "flowers/default:1", "--to", "torch", cwd=folder)
    assert (missing.code, missing.err) == (
        4,
        "selfsup: error[checkpoint]: mae-d1 has not finished training: run its spec again first\n",
    )
    unknown = selfsup("embed", "flowers/default:7", "photos", "out.parquet", cwd=folder)
    assert unknown.code == 2
    assert unknown.err.startswith(
        "selfsup: error[spec]: no run flowers/default:7; the nearest are flowers/mae/default:"
    )


def test_an_evaluator_from_outside_shows_all_but_its_number_of_images() -> None:
    metrics = {
        "eval/mine/auc": 0.5,
        "eval/mine/images": 9.0,
        "eval/few/top1": 3.0,
        "eval/few/images": 9.0,
        "pretrain/loss": 1,
    }
    params = {"evals.few.use": "knn", "evals.mine.use": "mine"}
    assert headline(metrics, params) == {"eval/few/top1": 3.0, "eval/mine/auc": 0.5}


def test_parts_that_repeat_or_are_empty_leave_a_name() -> None:
    assert joined("mae", "mae", "default") == "mae/default"
    assert joined("simclr", "", "simclr") == "simclr"


@pytest.mark.parametrize(("number", "text"), [(0, "–"), (999, "999 bytes"), (1000, "0.977 KiB"), (5 * 2**30, "5 GiB")])
def test_a_size_has_three_digits(number: int, text: str) -> None:
    assert volume(number) == text

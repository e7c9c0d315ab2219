"""What `selfsup clean` removes, what it leaves alone, and what it does beside processes that run."""

import fcntl
import io
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import selfsup
from stores import add_record, add_run, add_stage

from selfsup import stage
from selfsup.errors import CheckpointError
from selfsup.scratch import LOCK
from selfsup.stage import locked
from selfsup.sweeps import clean
from selfsup.sweeps.stored import UNSENT, stored
from selfsup.track import Tracker

HOLDER = """
import fcntl, sys
lock = open(sys.argv[1])
fcntl.flock(lock, fcntl.LOCK_EX)
print(flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def tracker(tmp_path_factory: pytest.TempPathFactory, local_store: Callable[[Path], Tracker]) -> Tracker:
    tracker = local_store(tmp_path_factory.mktemp("store"))
    for key in ("mae-a", "mae-b", "mae-c"):
        run = add_run(tracker, key, study="mae", arm=key, knn=70.0)
        if key == "mae-c":
            tracker._client.delete_run(run)
    return tracker


@pytest.fixture
def home(tmp_path: Path, tracker: Tracker, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two runs that share a stage, one that was deleted in MLflow, and a stage of none."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracker.uri)
    for key in "abc":
        add_record(tmp_path, f"mae-{key}", [f"pretrain-{key}", "embed-shared"])
        add_stage(tmp_path, f"pretrain-{key}", 1000)
    add_stage(tmp_path, "embed-shared", 1000)
    add_stage(tmp_path, "knn-none", 50)
    add_stage(tmp_path, "knn-half", 50, done=False)
    return tmp_path


def left(home: Path) -> set[str]:
    return {path.name for path in home.glob("stages/*")}


ALL = {"pretrain-a", "pretrain-b", "pretrain-c", "embed-shared", "knn-none", "knn-half"}


def test_what_nothing_refers_to_is_removed_and_nothing_else(home: Path, tracker: Tracker) -> None:
    cleaning = clean.unneeded(home, tracker)
    assert {(removal.path.name, removal.why, removal.bytes) for removal in cleaning.removals} == {
        ("pretrain-c", "of runs deleted in MLflow", 1000),
        ("knn-none", "of no run", 50),
        ("knn-half", "of no run", 50),
    }
    assert left(home) == ALL, "a plan removes nothing"
    assert clean.carry_out(home, cleaning) == []
    assert left(home) == ALL - {"pretrain-c", "knn-none", "knn-half"}
    assert {path.stem for path in home.glob("runs/*")} == {"mae-a", "mae-b"}
    assert clean.unneeded(home, tracker) == clean.Cleaning((), (), ())


def test_finished_stages_stay_while_mlflow_has_runs_without_a_record(home: Path, tracker: Tracker) -> None:
    """As where the folder of records was lost, or the records are on another machine."""
    (home / "runs" / "mae-b.json").unlink()
    cleaning = clean.unneeded(home, tracker)
    assert {removal.path.name for removal in cleaning.removals} == {"pretrain-c", "knn-half"}
    assert [remark.split(";")[0].split(":")[0] for remark in cleaning.remarks] == [
        "2 finished stages of no record will stay"
    ]


def test_a_damaged_record_stops_it_since_it_may_name_any_stage(home: Path, tracker: Tracker) -> None:
    (home / "runs" / "mae-b.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"mae-b.json: damaged"):
        clean.unneeded(home, tracker)
    assert left(home) == ALL


def test_files_of_named_runs_go_and_shared_ones_stay(home: Path) -> None:
    runs = [run for run in stored(home) if run.id == "mae-a"]
    cleaning = clean.of_runs(home, runs)
    assert [removal.path.name for removal in cleaning.removals] == ["pretrain-a"]
    assert cleaning.remarks == ("1 stage of theirs, which other runs share, will stay",)
    assert str(cleaning).splitlines()[:2] == [
        "to be removed: 1 folder, 0.977 KiB",
        "  pretrain  1  0.977 KiB  of these runs alone",
    ]
    clean.carry_out(home, cleaning)
    assert left(home) == ALL - {"pretrain-a"}
    (run,) = [run for run in stored(home) if run.id == "mae-a"]
    assert (run.status, run.stages, run.metrics["eval/knn/top1"]) == ("done", (), 70.0), "the numbers stay"


def test_a_run_that_was_deleted_in_mlflow_says_so(home: Path) -> None:
    (run,) = [run for run in stored(home) if run.id == "mae-c"]
    assert (run.status, run.why) == ("stopped", "deleted in MLflow: `selfsup clean` removes it")


def test_the_last_of_runs_that_share_a_stage_takes_it_along(home: Path) -> None:
    clean.carry_out(home, clean.of_runs(home, stored(home)))
    assert left(home) == {"knn-none", "knn-half"}


def test_a_run_whose_numbers_are_not_in_mlflow_stays(home: Path, tracker: Tracker) -> None:
    add_record(home, "mae-d", ["knn-none"])
    (run,) = [run for run in stored(home) if run.id == "mae-d"]
    assert (run.status, run.why) == ("pending", UNSENT)
    assert clean.of_runs(home, [run]) == clean.Cleaning((), (), (f"mae-d stays: {UNSENT}",))
    assert "knn-none" not in {removal.path.name for removal in clean.unneeded(home, tracker).removals}


def test_what_runs_now_stays(home: Path, tracker: Tracker) -> None:
    """A lock that another process holds, of a stage of no run and of one of a run."""
    for name in ("pretrain-a", "pretrain-c", "knn-none"):
        argv = [sys.executable, "-c", HOLDER, str(home / "stages" / name / stage.LOCK)]
        with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout
            process.stdout.readline()
            runs = [run for run in stored(home) if run.id == "mae-a"]
            planned = [*clean.of_runs(home, runs).removals, *clean.unneeded(home, tracker).removals]
            process.communicate()
        assert name not in {removal.path.name for removal in planned}


def test_a_stage_that_is_used_after_the_plan_stays(home: Path, tracker: Tracker) -> None:
    """A run that begins while the user thinks writes its record, then locks its stages."""
    cleaning = clean.unneeded(home, tracker)
    add_record(home, "mae-d", ["knn-none"])
    with locked(home / "stages" / "knn-half"):
        stays = clean.carry_out(home, cleaning)
    assert {removal.path.name for removal in stays} == {"knn-none", "knn-half"}
    assert {"knn-none", "knn-half"} <= left(home)


def test_a_process_that_waits_for_a_removed_stage_locks_the_new_folder(tmp_path: Path) -> None:
    """Else two processes would each hold a lock, one of a file that no longer has a name."""
    folder = add_stage(tmp_path, "knn-a")
    inside, done = threading.Event(), threading.Event()

    def wait() -> None:
        with locked(folder):
            inside.set()
            done.wait()

    with (folder / stage.LOCK).open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        waiting = threading.Thread(target=wait)
        waiting.start()
        assert not inside.wait(0.2)
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
    assert inside.wait(10)
    assert stage.is_locked(folder)
    assert not stage.remove(folder)
    done.set()
    waiting.join()
    assert stage.remove(folder)


def test_folders_of_dead_processes_are_removed(home: Path, tracker: Tracker) -> None:
    for name in ("selfsup-dead", "selfsup-alive"):
        (home / "tune" / name).mkdir(parents=True)
        (home / "tune" / name / LOCK).touch()
    with (home / "tune" / "selfsup-alive" / LOCK).open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        clean.carry_out(home, clean.unneeded(home, tracker))
    assert [path.name for path in home.glob("tune/*")] == ["selfsup-alive"]


def test_the_command_asks_first(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    top = home.parent / "top"
    top.mkdir()
    (top / "home").symlink_to(home)
    shown = selfsup("clean", "--dry-run", cwd=top)
    assert (shown.code, shown.out.splitlines()[0]) == (0, "to be removed: 3 folders, 1.07 KiB")
    monkeypatch.setattr("sys.stdin", io.StringIO())  # a user who says nothing
    assert selfsup("clean", cwd=top).code == 1
    assert left(home) == ALL
    assert selfsup("clean", "--yes", cwd=top).code == 0
    assert left(home) == ALL - {"pretrain-c", "knn-none", "knn-half"}
    assert selfsup("clean", "mae-b", "-y", cwd=top).code == 0
    assert left(home) == {"pretrain-a", "embed-shared"}
    assert selfsup("clean", cwd=top).out == "nothing to be removed\n"

"""Folders of running processes: those of the dead are swept up, those of the living and of anybody else stay."""

import subprocess
import sys
from pathlib import Path

from selfsup import scratch as module
from selfsup.scratch import scratch


def killed(parent: Path) -> Path:
    """The folder of a process that was killed while it used one."""
    code = (
        f"import os, pathlib, runpy; make = runpy.run_path({module.__file__!r})['scratch']\n"
        f"with make(pathlib.Path({str(parent)!r})) as folder:\n"
        "    (folder / 'deep').mkdir(); (folder / 'deep' / 'file').touch(); print(folder, flush=True)\n"
        "    os.kill(os.getpid(), 9)"
    )
    return Path(subprocess.run([sys.executable, "-SEc", code], capture_output=True, text=True).stdout.strip())


def test_a_folder_is_there_for_as_long_as_the_block_runs(tmp_path: Path) -> None:
    with scratch(tmp_path / "below") as folder:
        (folder / "file").touch()
    assert list((tmp_path / "below").iterdir()) == []


def test_what_a_killed_process_left_is_swept_up_by_the_next(tmp_path: Path) -> None:
    left = killed(tmp_path)
    assert (left / "deep" / "file").exists()
    with scratch(tmp_path) as folder:
        assert list(tmp_path.iterdir()) == [folder]


def test_what_is_kept_stays_until_the_next(tmp_path: Path) -> None:
    with scratch(tmp_path, keep=True) as first:
        (first / "log").touch()
    assert (first / "log").exists()
    with scratch(tmp_path, keep=True):
        assert not first.exists()


def test_folders_of_the_living_stay(tmp_path: Path) -> None:
    with scratch(tmp_path) as first, scratch(tmp_path) as second:
        assert set(tmp_path.iterdir()) == {first, second}


def test_what_only_looks_like_one_stays(tmp_path: Path) -> None:
    (tmp_path / "selfsup-cache-0").mkdir()
    left = killed(tmp_path / "elsewhere")
    (tmp_path / "selfsup-link").symlink_to(left)
    with scratch(tmp_path) as folder:
        assert {path.name for path in tmp_path.iterdir()} == {
            "selfsup-cache-0", "elsewhere", "selfsup-link", folder.name,
        }  # fmt: skip
    assert left.exists()

"""What is written whole or not at all: by several processes at once, by one that fails, by one that was killed."""

import ast
import json
import multiprocessing
import os
from pathlib import Path

import pytest

from selfsup import whole
from selfsup.pipelines.data import storage
from selfsup.stage import Stage, write_json

ROOT = Path(__file__).parent.parent
WRITES, WRITERS = 250, 2  # of each of two files


def _write_often(folder: Path, writer: int) -> None:
    for number in range(WRITES):
        write_json(folder / "note.json", [writer] * number)
        storage.write(str(folder), "block", bytes([writer]) * 100_000)


def test_no_write_of_two_processes_fails_and_every_read_is_whole(tmp_path: Path) -> None:
    _write_often(tmp_path, WRITERS)
    start = multiprocessing.get_context("fork").Process
    writers = [start(target=_write_often, args=(tmp_path, writer)) for writer in range(WRITERS)]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        assert len(set(json.loads((tmp_path / "note.json").read_text()))) <= 1
        block = (tmp_path / "block").read_bytes()
        assert block == block[:1] * 100_000
    assert [writer.exitcode for writer in writers] == [0] * WRITERS
    assert sorted(path.name for path in tmp_path.iterdir()) == ["block", "note.json"]


def test_a_block_that_raises_leaves_what_was_there_and_no_part(tmp_path: Path) -> None:
    def failing(name: str) -> None:
        with whole.whole(tmp_path / name) as part:
            part.mkdir() if name == "folder" else part.write_text("half")
            raise KeyboardInterrupt

    whole.write(tmp_path / "file", "before")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "inside").touch()
    for name in ("file", "folder"):
        with pytest.raises(KeyboardInterrupt):
            failing(name)
    assert (tmp_path / "file").read_text() == "before"
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "folder", "inside"]


def test_a_folder_replaces_the_one_that_is_there(tmp_path: Path) -> None:
    for name in ("old", "new"):
        with whole.whole(tmp_path / "folder") as part:
            part.mkdir()
            (part / name).write_text(name)
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["new"]


def test_what_the_dead_left_is_swept_and_what_the_living_write_is_not(tmp_path: Path) -> None:
    stage = Stage("pretrain", {}, {}, tmp_path)
    for folder, write in ((stage.folder, stage.claim), (tmp_path, lambda: storage.write(str(tmp_path), "a", b""))):
        folder.mkdir(parents=True, exist_ok=True)
        dead, living = whole.part_of(folder / "features"), whole.part_of(folder / "features")
        (dead / "inside").mkdir(parents=True)
        living.touch()
        os.utime(dead, (0, 0))
        write()
        assert living.exists()
        assert not dead.exists()


def test_everything_that_takes_a_name_in_one_stroke_does_so_by_the_one_helper() -> None:
    """A `replace` with one argument is Path's: text's has two, a dataclass's has keywords."""
    for path in [path for top in ("platform", "pipelines", "sweeps") for path in (ROOT / top).rglob("*.py")]:
        calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        named = [call for call in calls if isinstance(call.func, ast.Attribute) and call.func.attr == "replace"]
        strokes = [call for call in named if len(call.args) == 1 and not call.keywords]
        assert not strokes or path.stem in ("whole", "cache"), path

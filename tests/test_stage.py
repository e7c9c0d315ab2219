"""Records of stages: as they were written, or refused; those of older code."""

import json
from pathlib import Path

import pytest

from selfsup.errors import CheckpointError
from selfsup.stage import Stage
from selfsup.sweeps.spec.outline import measured

DAMAGE = [b"", b'{"result": {"to', bytes(40), b"\xff\xfe", b"[1]", b'{"time": 1}']


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    told = {"method": "mae", "backbone": {"name": "vit"}}
    stage = Stage("pretrain", told, told, tmp_path)
    stage.claim()
    stage.finish({"start_seconds": 2.0})
    line = {"step": 4, "time": 7, "values": {"samples_per_second": 100.0}}
    stage.spool.write_text(json.dumps(line) + "\n")
    return stage


@pytest.mark.parametrize("data", DAMAGE)
def test_a_damaged_result_is_no_traceback_and_no_number(stage: Stage, data: bytes) -> None:
    assert stage.result() == {"start_seconds": 2.0}
    (stage.folder / "done.json").write_bytes(data)
    with pytest.raises(CheckpointError, match=r"done.json: damaged; remove it"):
        stage.result()
    (stage.folder / "done.json").unlink()
    assert not stage.done


@pytest.mark.parametrize("data", DAMAGE[:5])
def test_a_damaged_note_of_the_settings_is_told(stage: Stage, data: bytes) -> None:
    (stage.folder / "stage.json").write_bytes(data)
    with pytest.raises(CheckpointError, match=r"stage.json: damaged; remove it"):
        stage.claim()
    (stage.folder / "stage.json").unlink()
    stage.claim()


@pytest.mark.parametrize("note", ["stage.json", "done.json"])
@pytest.mark.parametrize("data", [*DAMAGE, b'{"of": "an older version"}'])
def test_others_of_a_home_take_no_plan_down(stage: Stage, note: str, data: bytes) -> None:
    assert list(measured(stage.home).values()) == [[(2.0, 100.0)]]
    (stage.folder / note).write_bytes(data)
    assert measured(stage.home) == {}


def test_a_flipped_bit_or_a_cut_changes_no_result(tmp_path: Path) -> None:
    stage = Stage("knn", {}, {}, tmp_path)
    stage.claim()
    result, path = {"top1": 62.5, "loss": float("inf")}, stage.folder / "done.json"
    stage.finish(result)
    assert stage.result() == result
    whole, found = path.read_bytes(), 0
    flips = [whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1 :] for at in range(len(whole))]
    for damaged in [*flips, b"", whole[:-9], b"[]"]:
        path.write_bytes(damaged)
        try:
            assert stage.result() == result
        except CheckpointError:
            found += 1
    assert found > 0.8 * len(whole)


def test_a_record_of_older_code_is_read(tmp_path: Path) -> None:
    stage = Stage("knn", {}, {}, tmp_path)
    stage.claim()
    (stage.folder / "done.json").write_text(json.dumps({"result": {"top1": 1.0}, "time": 7}))
    assert (stage.result(), stage.time) == ({"top1": 1.0}, 7)

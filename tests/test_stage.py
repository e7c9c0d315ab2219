"""A stage's record of its result: as it was written, or refused."""

import json
from pathlib import Path

from selfsup.errors import CheckpointError
from selfsup.stage import Stage


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

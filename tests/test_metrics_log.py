"""The file between a training step and MLflow: what survives a kill, and what must not."""

import binascii
import math
from collections.abc import Iterable
from pathlib import Path

import pytest

from selfsup.errors import TrackError
from selfsup.metrics_log import MetricsLog, records, tail


def fill(path: Path, steps: Iterable[int], *, commit: int | None = None, restored: int = 0) -> None:
    spool = MetricsLog(path, restored=restored)
    for step in steps:
        spool.append(step, {"loss": float(step)})
    if commit is not None:
        spool.commit(commit)


def steps(path: Path, *, committed: bool = True) -> list[int]:
    return [record.step for record in records(path, committed=committed)]


def test_only_committed_records_are_final(tmp_path: Path) -> None:
    spool = MetricsLog(tmp_path / "deep" / "a.jsonl")
    spool.append(1, {"loss": 0.5})
    assert steps(tmp_path / "deep" / "a.jsonl") == []
    assert steps(tmp_path / "deep" / "a.jsonl", committed=False) == [1]
    spool.commit(1)
    spool.append(2, {"loss": 0.25})
    assert steps(tmp_path / "deep" / "a.jsonl") == [1]


def test_opening_again_drops_what_no_checkpoint_holds(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    fill(path, [1, 2], commit=2)
    fill(path, [3, 4])
    MetricsLog(path)
    assert steps(path, committed=False) == [1, 2]


def test_records_of_a_checkpoint_saved_just_before_the_kill_stay(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    fill(path, [1, 2], commit=2)
    fill(path, [3, 4, 5])  # the checkpoint of step 4 was saved, the commit was not written
    fill(path, [5, 6], commit=6, restored=4)
    assert steps(path) == [1, 2, 3, 4, 5, 6]


def test_steps_that_are_there_are_not_recorded_again(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    fill(path, [1, 2, 3], commit=3)
    before = path.read_bytes()
    fill(path, [2, 3])
    assert path.read_bytes() == before
    fill(path, [3, 4], commit=4)
    assert steps(path) == [1, 2, 3, 4]


def test_one_step_may_be_recorded_in_parts(tmp_path: Path) -> None:
    spool = MetricsLog(tmp_path / "a.jsonl")
    spool.append(1, {"loss": 1.0})
    spool.append(1, {"rankme": 2.0})
    assert [dict(record.values) for record in records(tmp_path / "a.jsonl", committed=False)] == [
        {"loss": 1.0},
        {"rankme": 2.0},
    ]


@pytest.mark.parametrize("torn", [b'{"step":3,"ti', b"\0\0\0\n", b"[]\n", b'{"commit":3}'])
def test_a_torn_line_ends_the_file(tmp_path: Path, torn: bytes) -> None:
    path = tmp_path / "a.jsonl"
    fill(path, [1, 2], commit=2)
    with path.open("ab") as file:
        file.write(torn)
    assert steps(path, committed=False) == [1, 2]
    fill(path, [3], commit=3)
    assert steps(path) == [1, 2, 3]


LINE = b'{"step":2,"time":7,"values":{"loss":0.5}}'


def test_a_line_ends_with_the_crc32_of_what_stands_before_and_one_of_older_code_without(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    fill(path, [1])
    head, _, end = path.read_bytes().rpartition(b',"sum":"')
    assert end == f'{binascii.crc32(head + b"}"):08x}"}}\n'.encode()
    path.write_bytes(LINE + b"\n" + b'{"commit":2}\n')
    assert steps(path) == [2]


def test_no_flipped_bit_is_another_number_and_all_other_lines_stay(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Flip each bit of a record in the middle: its step is left out, which is said, or reads as it was."""
    path = tmp_path / "a.jsonl"
    fill(path, [1, 2, 3], commit=3)
    whole = path.read_bytes()
    start = whole.index(b"\n") + 1
    stop = whole.index(b"\n", start)
    good = [(record.step, record.values) for record in records(path)]
    for bit in range(8 * start, 8 * stop):
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        (path := tmp_path / f"{bit}.jsonl").write_bytes(flipped)
        read = [(record.step, record.values) for record in records(path)]
        assert read in (good, [good[0], good[2]])
        assert (read == good) != (f"{path}: the line that ends at byte" in caplog.text)
    MetricsLog(path)
    assert steps(path) == [1, 3]
    assert len(caplog.records) <= 8 * (stop - start)


def test_the_tail_is_the_latest_record(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    assert tail(path) is None
    fill(path, [])
    assert tail(path) is None
    fill(path, range(1, 3001), commit=3000)  # longer than what tail reads
    found = tail(path)
    assert path.stat().st_size > 2**17
    assert found is not None
    assert (found.step, found.values) == (3000, {"loss": 3000.0})


def test_values_that_are_not_finite_are_kept_as_they_are(tmp_path: Path) -> None:
    spool = MetricsLog(tmp_path / "a.jsonl")
    spool.append(1, {"loss": math.inf, "norm": math.nan})
    (record,) = records(tmp_path / "a.jsonl", committed=False)
    assert record.values["loss"] == math.inf
    assert math.isnan(record.values["norm"])


@pytest.mark.parametrize("name", ["acc@1", "a=b", "/loss", "loss/", "a//b", "../loss", "", "a\nb", "größe"])
def test_a_name_that_mlflow_refuses_is_refused_when_recorded(tmp_path: Path, name: str) -> None:
    with pytest.raises(TrackError, match="cannot name a metric"):
        MetricsLog(tmp_path / "a.jsonl").append(1, {name: 1.0})


def test_a_full_disk_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    spool = MetricsLog(path)
    path.unlink()
    path.symlink_to("/dev/full")
    with pytest.raises(TrackError, match=r"a\.jsonl: cannot record metrics: No space left"):
        spool.append(1, {"loss": 1.0})

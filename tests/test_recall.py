"""Answers that are kept: found again while question and code are the same, and never in the way."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from selfsup import recall as module
from selfsup.recall import recall


@pytest.fixture
def counted() -> tuple[list[int], Callable[[], Any]]:
    """Return the calls of a function, and the function."""
    calls: list[int] = []

    def answer() -> Any:
        calls.append(1)
        return {"numbers": (1, 2.5, None), "call": len(calls)}

    return calls, answer


def test_an_answer_is_worked_out_once_a_question(tmp_path: Path, counted: Any) -> None:
    calls, answer = counted
    first = recall(tmp_path, ["plan", 1], answer)
    assert first == {"numbers": [1, 2.5, None], "call": 1}, "the same data as from a file"
    assert recall(tmp_path, ["plan", 1], answer) == first
    assert recall(tmp_path, ["plan", 1.0], answer)["call"] == 2
    assert recall(tmp_path / "other", ["plan", 1], answer)["call"] == 3
    assert len(calls) == 3


def test_other_code_and_what_no_longer_holds_are_worked_out_anew(
    tmp_path: Path, counted: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, answer = counted
    recall(tmp_path, "q", answer)
    assert recall(tmp_path, "q", answer, holds=lambda kept: kept["call"] == 1)["call"] == 1
    assert recall(tmp_path, "q", answer, holds=lambda kept: kept["call"] == 7)["call"] == 2
    assert recall(tmp_path, "q", answer)["call"] == 2, "what was worked out last is kept"
    monkeypatch.setattr(module, "code_digest", lambda: "of other code")
    assert recall(tmp_path, "q", answer)["call"] == 3


def test_a_damaged_file_and_a_folder_that_takes_none_are_no_errors(tmp_path: Path, counted: Any) -> None:
    _, answer = counted
    recall(tmp_path, "q", answer)
    (file,) = (tmp_path / "cache" / "answers").iterdir()
    file.write_bytes(b'{"call": 1')
    assert recall(tmp_path, "q", answer)["call"] == 2
    (tmp_path / "taken").write_text("a file where the folder should be")
    assert recall(tmp_path / "taken", "q", answer)["call"] == 3
    assert recall(tmp_path / "taken", "q", answer)["call"] == 4


def test_an_error_is_raised_each_time(tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            recall(tmp_path, "q", lambda: 1 / 0)


def test_only_the_latest_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST", 2)
    for number in range(4):
        recall(tmp_path, number, lambda: 0)
    assert len(list((tmp_path / "cache" / "answers").iterdir())) == 2
    recall(tmp_path, 3, lambda: pytest.fail("the last one is there"))


def test_the_digest_of_the_code_covers_every_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = {name: module._files(name) for name in module.PACKAGES}
    names = {"/".join(Path(path).parts[-2:]) for paths in listed.values() for path in paths}
    assert {"selfsup/knob.py", "selfsup/backbones.csv", "methods/mae.py", "pipelines/cost.py", "spec/study.py"} <= names
    assert not [name for name in names if name.endswith(".pyc")]
    (file := tmp_path / "code.py").write_text("1")
    monkeypatch.setattr(module, "_files", lambda _: [str(file)])
    before = module.code_digest.__wrapped__()
    file.write_text("2")
    assert module.code_digest.__wrapped__() != before

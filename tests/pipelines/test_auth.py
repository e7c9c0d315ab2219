"""The token of an embedded Ray, which Ray itself would write for everybody to read."""

import os
import stat
from pathlib import Path

import pytest

from selfsup.pipelines.cluster.auth import ensure_token


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "")  # so that what the test sets is taken back
    monkeypatch.delenv("RAY_AUTH_TOKEN")
    monkeypatch.delenv("RAY_AUTH_TOKEN_PATH", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path / ".ray" / "auth_token"


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_it_is_made_for_its_owner_alone(path: Path) -> None:
    ensure_token()
    assert mode(path) == 0o600
    assert len(path.read_text()) == 64
    before = path.read_text()
    ensure_token()
    assert path.read_text() == before


def test_one_that_all_could_read_is_closed_to_them(path: Path) -> None:
    path.parent.mkdir()
    path.write_text("mine")
    path.chmod(0o644)
    ensure_token()
    assert mode(path) == 0o600
    assert path.read_text() == "mine"


def test_where_nothing_can_be_written_it_ends_with_the_process(path: Path) -> None:
    path.parent.touch()  # no folder
    ensure_token()
    assert len(os.environ["RAY_AUTH_TOKEN"]) == 64

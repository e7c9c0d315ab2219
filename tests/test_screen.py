"""Color in terminals alone, and JSON that any program reads."""

import json
import os
import pty
import subprocess
import sys

import pytest

from selfsup.screen import show_json

RED, END = "\x1b[1;31m", "\x1b[0m"
SCRIPT = "from selfsup.screen import *; show('mae-1  failed, 0 failed'); show('83 ± 12*  [9]', BEST)"
PLAIN = "mae-1  failed, 0 failed\n83 ± 12*  [9]\n"
COLORED = f"mae-1  {RED}failed{END}, 0 failed\n\x1b[1;32m83 ± 12*{END}  [9]\n"


def shown(*, terminal: bool, **environment: str) -> str:
    """Return what the script prints to a terminal or a pipe."""
    clean = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR")}
    ours, theirs = pty.openpty() if terminal else os.pipe()
    subprocess.run(
        [sys.executable, "-c", SCRIPT], env=clean | {"TERM": "xterm"} | environment, stdout=theirs, check=True
    )
    text = os.read(ours, 10_000).decode().replace("\r\n", "\n")
    for end in (ours, theirs):
        os.close(end)
    return text


@pytest.mark.parametrize(
    ("terminal", "environment", "text"),
    [
        (True, {}, COLORED),
        (True, {"NO_COLOR": "1"}, PLAIN),
        (True, {"TERM": "dumb"}, PLAIN),
        (False, {}, PLAIN),
        (False, {"FORCE_COLOR": "1"}, COLORED),
    ],
)
def test_color_is_for_terminals_that_want_it(terminal: bool, environment: dict[str, str], text: str) -> None:
    assert shown(terminal=terminal, **environment) == text


def test_json_has_no_nan(capsys: pytest.CaptureFixture[str]) -> None:
    show_json([{"value": float("nan"), "best": (1.5, float("inf"))}])
    assert json.loads(capsys.readouterr().out, parse_constant=str) == [{"value": None, "best": [1.5, None]}]

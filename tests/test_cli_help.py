"""The help of every command: whole, in sections, and no wider than a terminal."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
import typer.main
from typer.testing import CliRunner

from selfsup.cli import app
from selfsup.cli_help import OTHERS, SECTIONS


def commands(group: Any, *above: str) -> Iterator[tuple[str, ...]]:
    """Yield the words of every command and group below `group`."""
    for name, command in group.commands.items():
        yield (*above, name)
        if hasattr(command, "commands"):
            yield from commands(command, *above, name)


ALL = [(), *commands(typer.main.get_command(app))]


def help_of(*words: str) -> str:
    return CliRunner().invoke(app, [*words, "--help"], env={"COLUMNS": "80"}).output


def test_every_command_is_in_one_section() -> None:
    named = [name for names in SECTIONS.values() for name in names]
    assert sorted(named) == sorted(words[0] for words in ALL if len(words) == 1)
    headings = re.findall(r"^([A-Z][a-z ]+):$", help_of(), flags=re.MULTILINE)
    assert headings == ["Options", *SECTIONS]
    assert OTHERS not in headings


def test_no_sentence_is_cut_short() -> None:
    shown = " ".join(help_of().split())
    assert "plan Validate specs and show what they would run, at which cost, and what is done already." in shown
    assert "..." not in shown.replace("[ARGS]...", "")


def test_arguments_are_named_without_types_of_python() -> None:
    """`SPEC <list[Path]>` says nothing to who reads it; what an option takes does: `--split <float>`."""
    for words in ALL:
        assert [line for line in help_of(*words).splitlines() if re.match(r"  [A-Z]\S+ <", line)] == [], words
    assert "  SPEC  spec files, or shipped ones: photos/mae  [required]\n" in help_of("plan")
    assert "  --split <float>  " in help_of("shards", "pack")


@pytest.mark.parametrize("words", ALL, ids=" ".join)
def test_a_line_of_help_is_no_wider_than_a_terminal(words: tuple[str, ...]) -> None:
    lines = help_of(*words).splitlines()
    assert lines[0].startswith("Usage: ")
    assert [line for line in lines if len(line) > 80] == []

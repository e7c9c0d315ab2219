"""Arguments and options that commands share, and a help that lists the commands by what they are for."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperArgument, TyperGroup

from selfsup.errors import SpecError

if TYPE_CHECKING:
    from selfsup.origin import CodePolicy

Specs = Annotated[
    list[Path], typer.Argument(metavar="SPEC", help="spec files, or shipped ones: photos/mae", show_default=False)
]
Set = Annotated[list[str] | None, typer.Option("--set", "-s", metavar="PATH=VALUE", help="override a value")]
Accept = Annotated[bool, typer.Option("--accept-code", help="count what other code made; it is noted there")]
Again = Annotated[bool, typer.Option("--again", help="remove what other code made, and make it anew")]
Swept = Annotated[
    Path, typer.Argument(metavar="SWEEP", help="a sweep file, or a shipped one: demo", show_default=False)
]

SECTIONS = {
    "First steps": ("init", "recipes", "describe", "plan", "run"),
    "Sweeps": ("sweep", "status", "report", "ui", "submit"),
    "Runs": ("runs", "compare", "clean"),
    "Data": ("shards",),
    "Features": ("embed", "export"),
    "Reference": ("schema", "check-method", "check-evaluator", "check-augmentation"),
}
OTHERS = "Commands"  # of a group without sections


def code_policy(accept_code: bool, again: bool) -> "CodePolicy":
    """Return what to do with results that other code made."""
    if accept_code and again:
        raise SpecError("--accept-code and --again exclude each other: give one of them")
    return "accept" if accept_code else "again" if again else "refuse"


class NamedArgument(TyperArgument):
    """An argument that help shows by its name alone: `SPEC`, not `SPEC <list[Path]>`."""

    def display_type_rich(self, ctx: Any) -> None:  # noqa: ARG002 (typer's own types are private)
        return None


class SectionedGroup(TyperGroup):
    """A group of commands whose help has sections, and the whole first sentence of each command."""

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        command = super().get_command(ctx, cmd_name)
        for parameter in command.params if command else ():
            if isinstance(parameter, TyperArgument):
                parameter.__class__ = NamedArgument  # typer makes arguments itself, of one class
        return command

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002 (typer's own types are private)
        width = max(map(len, self.commands))
        for section, names in self._sections():
            with formatter.section(section):
                formatter.write_dl([(name.ljust(width), _sentence(self.commands[name])) for name in names])

    def _sections(self) -> Iterator[tuple[str, list[str]]]:
        known = [name for names in SECTIONS.values() for name in names]
        for section, names in (SECTIONS | {OTHERS: tuple(name for name in self.commands if name not in known)}).items():
            if present := [name for name in names if name in self.commands]:
                yield section, present


def _sentence(command: Any) -> str:
    return str(command.get_short_help_str(limit=1000))

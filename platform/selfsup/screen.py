"""Text in color where a terminal shows it, else as it is. NO_COLOR, TERM=dumb and FORCE_COLOR are heeded.

Text is complete before it is colored, so that what a pipe or a file gets is the same without the color.
"""

import os
import sys
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import typer
from pydantic_core import to_json
from rich.console import Console
from rich.text import Text

ALONE = r"(?<!\b0 )(?<![\w-])"  # no part of a word, and no count of none
STYLES = MappingProxyType(
    {
        rf"{ALONE}(done|finished)(?![\w-])": "green",
        rf"{ALONE}(running)(?![\w-])": "cyan",
        rf"{ALONE}(failed)": "bold red",
        rf"{ALONE}(stopped|beware|made by other code)(?![\w-])": "yellow",
    }
)
ERROR = MappingProxyType({r"error\[[a-z-]+\]": "bold red"})
BEST = MappingProxyType({r"\S+( ± \S+)?\*(?= |$)": "bold green"})  # of the tables of a report, whose legend it is, too


def colored(text: str, styles: Mapping[str, str] = STYLES, *, err: bool = False) -> str:
    """Return text with the escape codes of what stdout, or stderr, shows. styles: pattern -> style of rich."""
    console = Console(
        file=sys.stderr if err else sys.stdout,
        color_system=None if os.environ.get("NO_COLOR") else "auto",
        highlight=False,
        soft_wrap=True,
    )
    if not console.color_system:
        return text
    content = Text(text)
    for pattern, style in styles.items():
        content.highlight_regex(pattern, style)
    with console.capture() as capture:
        console.print(content, end="")
    return capture.get()


def show(text: str, styles: Mapping[str, str] = STYLES, *, err: bool = False) -> None:
    """Print text as `colored` has it."""
    typer.echo(colored(text, styles, err=err), err=err, color=True)


def show_json(value: Any) -> None:
    """Print a value as JSON, as every `--json` does."""
    typer.echo(json_text(value))


def json_text(value: Any) -> str:
    """Return a value as JSON. NaN, which JSON lacks, is null."""
    return to_json(value, indent=1, inf_nan_mode="null", fallback=dict).decode()

"""The commands for runs that there are, of one sweep or of all."""

from typing import Annotated

import typer

from selfsup.cli_help import Set, Swept
from selfsup.errors import SpecError
from selfsup.screen import show, show_json

runs = typer.Typer()


@runs.command()
def status(
    spec: Swept,
    set_: Set = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="as JSON: [{study, arm, seed, id, status, why, kind, metrics}]")
    ] = False,
) -> None:
    """Show which runs of a sweep are done, running, pending and failed, and why. Exits with 1 while any is missing."""
    from selfsup.sweeps.layout import statuses
    from selfsup.sweeps.spec import sweepfile
    from selfsup.sweeps.status import text

    entries = statuses(sweepfile.read(spec, set_ or []))
    if as_json:
        show_json([entry._asdict() for entry in entries])
    else:
        show(text(entries))
    raise typer.Exit(0 if all(entry.ended for entry in entries) else 1)


@runs.command()
def compare(ids: Annotated[list[str], typer.Argument(metavar="ID...", help="of runs", show_default=False)]) -> None:
    """Show differences between runs, in settings and in results."""
    from selfsup.sweeps.report.compare import compare
    from selfsup.sweeps.report.results import find
    from selfsup.track import store

    if len(set(ids)) < 2:
        raise SpecError("selfsup compare: name two runs or more by ids, which `selfsup status SWEEP --json` shows")
    typer.echo(compare(*find(store(), ids)))

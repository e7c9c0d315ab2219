"""The commands for runs that there are, of one sweep or of all."""

from typing import Annotated, Literal

import typer

from selfsup.cli_help import Set, Swept
from selfsup.errors import SpecError
from selfsup.mlflow_store import home
from selfsup.screen import show, show_json

runs = typer.Typer()

Names = Annotated[
    list[str] | None,
    typer.Argument(metavar="NAME", help="a part of the name, as of a sweep or an arm, or of the id; * stands for any"),
]
Status = Annotated[
    Literal["done", "running", "failed", "stopped", "pending"] | None,
    typer.Option("--status", "--state", help="runs of this status alone"),
]


@runs.command()
def status(
    spec: Swept,
    set_: Set = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="as JSON: [{study, arm, seed, id, status, why, kind, metrics}]")
    ] = False,
) -> None:
    """Show which runs of a sweep are done, running, pending and failed, and why. Exits with 1 while any is missing."""
    from selfsup.sweeps.plans import statuses
    from selfsup.sweeps.status import text

    entries = statuses(spec, set_ or [])
    if as_json:
        show_json([entry._asdict() for entry in entries])
    else:
        show(text(entries))
    raise typer.Exit(0 if all(entry.ended for entry in entries) else 1)


@runs.command("runs")
def list_runs(
    names: Names = None,
    status: Status = None,
    last: Annotated[int | None, typer.Option(min=1, help="the newest N alone", metavar="N")] = None,
    as_json: Annotated[
        bool,
        typer.Option(
            "--json",
            help="as JSON: "
            "[{name, id, sweep, study, arm, seed, kind, status, why, metrics, stages, began, ended, bytes}]",
        ),
    ] = False,
) -> None:
    """List the runs of the store, the newest first: name, id, status, numbers, size. Other commands take the names."""
    from selfsup.sweeps.listing import as_data, table
    from selfsup.sweeps.stored import selected, stored

    listed = selected(stored(home()), names or (), status)[:last]
    if as_json:
        show_json(as_data(listed, home()))
    else:
        show(table(listed, home(), names or ()))


@runs.command()
def compare(
    names: Annotated[
        list[str],
        typer.Argument(metavar="RUN...", help="ids, or names as `selfsup runs` prints them", show_default=False),
    ],
    as_json: Annotated[
        bool,
        typer.Option(
            "--json",
            help="as JSON: {runs: [{id, study, arm, seed, status, reason, settings, metrics}], differing: [NAME]}",
        ),
    ] = False,
) -> None:
    """Show differences between runs, in settings and in results."""
    from selfsup.sweeps.report.compare import as_data, compare
    from selfsup.sweeps.report.results import find
    from selfsup.sweeps.stored import chosen, stored
    from selfsup.track import store

    if len(set(names)) > 1:
        there = stored(home())
        names = list(dict.fromkeys(chosen(there, name) for name in names))
    if len(set(names)) < 2:
        raise SpecError("selfsup compare: name two runs or more, by ids or names that `selfsup runs` prints")
    results = find(store(), names)
    if as_json:
        show_json(as_data(*results))
    else:
        typer.echo(compare(*results))


@runs.command()
def clean(
    names: Names = None,
    status: Status = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="do not ask")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", "-n", help="show it alone, and remove nothing")] = False,
) -> None:
    """Remove folders that nothing needs, or with names those of runs, once you have said yes; numbers stay in MLflow.

    Without names: stages of no run, and of runs that were deleted in MLflow. With names, or --status: all files of the
    runs that `selfsup runs` lists with the same words, trained encoders included; a sweep would make them anew. What
    other runs share, and what runs now, stays.
    """
    from selfsup.sweeps import clean
    from selfsup.sweeps.listing import table
    from selfsup.sweeps.stored import selected, stored, tracker_of

    if names or status:
        runs = selected(stored(home()), names or (), status)
        show(table(runs, home(), names or ()))
        cleaning = clean.of_runs(home(), runs)
    else:
        cleaning = clean.unneeded(home(), tracker_of(home()))
    typer.echo(str(cleaning))
    if dry_run or not (cleaning.removals or cleaning.runs):
        return
    if not yes:
        typer.confirm("remove?", abort=True)
    for removal in clean.carry_out(home(), cleaning):
        typer.echo(f"stays, since it is in use now: {removal.path}")

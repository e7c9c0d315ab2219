"""The command line: each command is a few lines over the library, and imports what it needs when it runs.

Exit codes: 0 done, 1 failed, 2 the spec or command is wrong, 3 the data, 4 a checkpoint, 5 tracking store; 130 Ctrl-C.
"""

import gc
import os
import sys
import webbrowser
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from selfsup import stand_ins
from selfsup.cli_catalogue import catalogue
from selfsup.cli_cluster import cluster
from selfsup.cli_encoders import encoders
from selfsup.cli_help import Accept, Again, SectionedGroup, Set, Specs, Swept, code_policy
from selfsup.cli_runs import runs
from selfsup.cli_shards import shards
from selfsup.errors import SelfsupError, SpecError
from selfsup.failures import disk_error
from selfsup.leave import end_when_told, leave
from selfsup.mlflow_store import PORT, WORKFLOW, home, is_server, ui_command
from selfsup.recall import keep_under
from selfsup.redact import redacted
from selfsup.screen import BEST, ERROR, show, show_json

if TYPE_CHECKING:
    from selfsup.sweeps.plans import Plan
    from selfsup.sweeps.spec.sweepfile import SweepFile
    from selfsup.sweeps.standing import ShownReport

BRIEF = {"clean", "compare", "describe", "plan", "recipes", "report", "runs", "schema", "status"}  # end in seconds
LIGHT = {"describe", "plan", "report", "schema", "status"}  # read objectives, and train none
WITH_TORCH = "SELFSUP_WITH_TORCH"  # in the environment of a command that could not do without
OBJECTS = 100_000  # between collections of garbage, of which imports make none: a sixth of a first plan's time
USUAL = gc.get_threshold()

app = typer.Typer(
    cls=SectionedGroup,
    epilog="Everything is kept under SELFSUP_HOME (default ~/.selfsup); MLFLOW_TRACKING_URI names another MLflow.",
    context_settings={"help_option_names": ["-h", "--help"]},
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(shards, name="shards")
app.add_typer(catalogue)
app.add_typer(encoders)
app.add_typer(runs)
app.add_typer(cluster)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"selfsup {version('selfsup')}")
        raise typer.Exit


@app.callback()
def options(
    context: typer.Context,
    version: Annotated[  # noqa: ARG001
        bool, typer.Option("--version", callback=_version, is_eager=True, help="print it")
    ] = False,
) -> None:
    """Self-supervised learning sweeps you can trust, on Ray and MLflow."""
    if context.invoked_subcommand in BRIEF | {"run", "sweep"}:
        gc.set_threshold(OBJECTS)


@app.command()
def plan(
    specs: Specs,
    set_: Set = None,
    as_json: Annotated[
        bool,
        typer.Option(
            "--json",
            help="as JSON: [{sweep, study, arm, seed, id, status, why, kind, metrics, steps, stages: {STAGE: done}}]; "
            "none of a search",
        ),
    ] = False,
) -> None:
    """Validate specs and show what they would run, at which cost, and what is done already. Starts nothing."""
    from selfsup.pipelines.summary import describe
    from selfsup.sweeps.plans import Plan
    from selfsup.sweeps.status import plan_data

    plans = [Plan(path, set_ or [], home()) for path in specs]
    planned = [plan for plan in plans if not plan.is_search]
    if as_json:
        show_json([run for plan in planned for run in plan_data(plan.sweep, plan.runs)])
        return
    plain = [plan for plan in planned if plan.is_plain]
    texts = [_outline(plan) for plan in plans if plan not in plain]
    if plain:
        texts.append(describe([list(plan.runs.values()) for plan in plain], [plan.facts for plan in plain]))
    for text in texts:
        show(text)


@app.command()
def run(specs: Specs, set_: Set = None, accept_code: Accept = False, again: Again = False) -> None:
    """Run what is missing of specs, then show their table. The same command continues after any interruption."""
    from selfsup.pipelines.summary import describe
    from selfsup.sweeps.standing import tabled

    plans, policy = _plain_plans(specs, set_), code_policy(accept_code, again)
    show(describe([list(plan.runs.values()) for plan in plans], [plan.facts for plan in plans]))
    shown, failed = tabled(plans, home()), None
    if shown is None:
        _import_for_workers()
        from selfsup.sweeps.session import complete
        from selfsup.track import store

        shown, failed = complete(plans, store(), policy)
    show(f"\n{shown.table}\n", BEST)
    for title, picture in shown.pictures:
        typer.echo(f"{title}: {picture}")
    if shown.features:
        typer.echo(f"features:        selfsup embed {shown.features} SAMPLES OUT.parquet")
    typer.echo("every number:    selfsup ui")
    if failed:
        raise failed[0].exception()


@app.command()
def sweep(
    spec: Swept,
    set_: Set = None,
    only: Annotated[list[str] | None, typer.Option(help="id of a run; the others are left as they are")] = None,
    accept_code: Accept = False,
    again: Again = False,
) -> None:
    """Run what is missing of a sweep, then make its report. The same command continues after any interruption."""
    from selfsup.sweeps.plans import Plan
    from selfsup.sweeps.standing import finished
    from selfsup.track import store

    plan, policy = Plan(spec, set_ or [], home()), code_policy(accept_code, again)
    done = None if plan.is_search or only else finished(plan, home())
    tracker = None if done else store()
    show(_outline(plan))
    if not plan.is_search and plan.is_plain:
        typer.echo("one setting: `ablate: {PATH: [VALUE, VALUE]}` in the spec compares others with it")
    if tracker:
        _import_for_workers()
        from selfsup.sweeps.reports import renew
        from selfsup.sweeps.session import conduct

        arms, failed = conduct(plan.file, tracker, only or (), policy)
        done = renew(arms, tracker)
    assert done
    _show_report(done)
    raise typer.Exit(1 if tracker and failed else 0)


@app.command()
def report(
    spec: Swept,
    set_: Set = None,
    show: Annotated[bool, typer.Option("--open", help="the page, in a browser")] = False,
) -> None:
    """Make the tables and figures of a sweep from what MLflow holds of it, at any time."""
    from selfsup.sweeps.plans import Plan
    from selfsup.sweeps.standing import standing

    plan = Plan(spec, set_ or [], home())
    arms = None if plan.is_search else plan.sweep  # before a store is opened for it
    shown = (arms and standing(arms, home())) or _new_report(plan)
    _show_report(shown)
    if show:
        webbrowser.open(Path(shown.page).as_uri())


@app.command()
def ui(port: Annotated[int, typer.Option(help="on this machine")] = PORT) -> None:
    """Start the MLflow UI on the store in use, for this machine only; print links to charts of the latest sweeps."""
    from selfsup.sweeps import mlflow_views
    from selfsup.track import store

    tracker = store()
    for line in mlflow_views.charts(tracker, port):
        typer.echo(line)
    if is_server(tracker.uri):
        typer.echo(f"the store in use is a server: {redacted(tracker.uri)}")
        return
    argv, environment = ui_command(tracker.uri, home(), port)
    typer.echo(f"http://127.0.0.1:{port}/#/experiments?{WORKFLOW}")
    os.execvpe(argv[0], argv, environment)


def _import_for_workers() -> None:
    """Import what runs need before anything else imports Ray, so that Ray's workers can be forks of this process."""
    from selfsup.pipelines.cluster.forkserver import import_modules

    import_modules()
    gc.set_threshold(*USUAL)  # of what may train for days


def main() -> NoReturn:
    end_when_told()
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # of libraries as they are imported; stages set torch's own
    keep_under(home)
    if LIGHT.intersection(sys.argv[1:2]) and WITH_TORCH not in os.environ:
        stand_ins.install()
    try:
        command()
    except SystemExit as end:
        leave(int(end.code or 0))
    except stand_ins.NeedsTorch:
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], os.environ | {WITH_TORCH: "1"})


def command() -> NoReturn:
    """Run the command of this process's arguments, as `main`, which ends the process; raise SystemExit of its code."""
    try:
        app()
    except SelfsupError as error:
        _fail(error)
    except OSError as error:
        if known := disk_error(error):
            _fail(known)
        raise
    except ModuleNotFoundError as error:
        if not error.name or error.name.startswith("selfsup"):
            raise
        _fail(SelfsupError(f"{error.name} is not installed here; to install selfsup without --no-deps brings it"))
    sys.exit(0)


def _fail(error: SelfsupError) -> NoReturn:
    show(f"selfsup: error[{error.code}]: {error}", ERROR, err=True)
    sys.exit(error.exit_code)


def _plain_plans(specs: list[Path], overrides: list[str] | None) -> "list[Plan]":
    from selfsup.sweeps.plans import Plan

    plans = [Plan(path, overrides or [], home()) for path in specs]
    for path, plan in zip(specs, plans, strict=True):
        if plan.is_search or not plan.is_plain:
            raise SpecError(f"{path}: a sweep, with more settings than one; run it by `selfsup sweep {path}`")
    return plans


def _history(sweep_file: "SweepFile") -> Iterator[str]:
    """Yield the lines on earlier trials of a search; Ray is imported only where there are any."""
    if (home() / "searches").exists():
        stand_ins.remove()
        from selfsup.sweeps.explore import history

        yield from history(sweep_file, home())


def _outline(plan: "Plan") -> str:
    from selfsup.sweeps.spec import outline

    if plan.is_search:
        return "\n".join([outline.describe_search(plan.file, home()), *_history(plan.file)])
    return outline.written(plan.sweep, list(plan.runs.values()), plan.warnings)


def _new_report(plan: "Plan") -> "ShownReport":
    """Write the report of a sweep, or of what a search found so far."""
    stand_ins.remove()
    from selfsup.sweeps.reports import renew
    from selfsup.track import store

    tracker = store()
    if not plan.is_search:
        return renew(plan.sweep, tracker)
    from selfsup.sweeps.layout import lay_out

    return renew(lay_out(plan.file, tracker)[0], tracker)


def _show_report(report: "ShownReport") -> None:
    show(f"\n{report.tables}\n", BEST)
    for line in report.lines:
        typer.echo(line)


if __name__ == "__main__":
    main()

"""The command that sends specs to a Ray cluster."""

from pathlib import Path
from typing import Annotated

import typer

from selfsup.cli_help import Accept, Again, Set, Specs, code_policy

cluster = typer.Typer()


@cluster.command()
def submit(
    specs: Specs,
    set_: Set = None,
    address: Annotated[
        str, typer.Option(envvar="RAY_API_SERVER_ADDRESS", help="of the cluster's job server")
    ] = "http://127.0.0.1:8265",
    name: Annotated[
        str, typer.Option(help="of the job in Ray  [default: the spec's, and a few digits]", show_default=False)
    ] = "",
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="stream the log and end as the job does")] = True,
    env: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="a variable that is sent along, as it is set here")
    ] = None,
    shared: Annotated[
        list[Path] | None,
        typer.Option(envvar="SELFSUP_SHARED", help="a folder that all nodes see at this path, as that of the data"),
    ] = None,
    py_modules: Annotated[
        list[str] | None,
        typer.Option("--py-modules", metavar="FOLDER_OR_NAME", help="a package of yours that travels along"),
    ] = None,
    runtime_env: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="YAML of Ray's, merged with what the job needs")
    ] = None,
    wheel: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="of selfsup  [default: made of what is installed here]"),
    ] = None,
    accept_code: Accept = False,
    again: Again = False,
) -> None:
    """Run specs, or a sweep, as a job on a Ray cluster: send the project as a wheel, stream the log, end as it does."""
    from selfsup.pipelines.cluster.runtime_env import Extras, own_packages
    from selfsup.pipelines.cluster.shared_paths import check_visible
    from selfsup.pipelines.cluster.submit import job_name, mlflow_page, submit
    from selfsup.sweeps.spec import sweepfile

    overrides, packages = set_ or [], own_packages(py_modules or [])
    sweep_files = [sweepfile.read(path, overrides) for path in specs]
    verb, title = sweepfile.command_for(sweep_files), sweep_files[0].name
    check_visible([tree for path in specs for tree in sweepfile.trees(path, overrides)], shared or [])
    job = submit(
        verb,
        specs,
        overrides,
        address=address,
        name=name or job_name(title),
        extras=Extras(env or (), packages, runtime_env, wheel),
        code=code_policy(accept_code, again),
    )
    typer.echo(job.summary)
    succeeded = job.follow() if wait else True
    if page := mlflow_page(title):
        typer.echo(f"MLflow:    {page}")
    raise typer.Exit(not succeeded)

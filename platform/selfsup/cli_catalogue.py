"""The commands that list what specs may name, and check the user's own code."""

import json
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from selfsup import outside
from selfsup.columns import aligned
from selfsup.errors import SpecError
from selfsup.mlflow_store import home
from selfsup.recall import recall
from selfsup.screen import json_text, show, show_json

catalogue = typer.Typer()
VERDICTS = {"^no ": "bold red", "^yes ": "green"}


@catalogue.command()
def describe(
    method: Annotated[
        str | None,
        typer.Argument(metavar="METHOD", help="a method, or with --evals an evaluator; without it, all are listed"),
    ] = None,
    families: Annotated[bool, typer.Option("--backbones", help="which of timm's families serve which methods")] = False,
    evals: Annotated[bool, typer.Option("--evals", help="the evaluators, or the knobs of the one named")] = False,
    compared: Annotated[bool, typer.Option("--proof", help="what it is compared with, and its deviations")] = False,
    as_json: Annotated[
        bool,
        typer.Option(
            "--json",
            help="as JSON: of the methods [{method, family, backbones, paper, summary}], of one [{path, type, default, "
            "required, bounds, symbol, sweep, result, doc, was}], --backbones [{family, model_class ...}], --evals "
            "[{evaluator, paper, reads, metrics: {NAME: {unit, better, headline}}, summary, knobs: {NAME: default}}], "
            "of one as of a method, --proof {METHOD: {loss, loop, recipe, recipes, run, deviations}}",
        ),
    ] = False,
) -> None:
    """Show every knob of a method, or of an evaluator: default, symbol, range, meaning. Without a name, list them."""
    if families + evals + compared > 1:
        raise typer.BadParameter("--backbones, --evals and --proof exclude each other")
    described = partial(_data if as_json else _text, method, families=families, compared=compared)
    described = partial(_evaluators, method, as_json=as_json) if evals else described
    if outside.is_outside(method):  # it changes by itself
        typer.echo(described())
    else:
        typer.echo(recall(home(), ["describe", method, families, evals, compared, as_json], described))


def _evaluators(use: str | None, *, as_json: bool) -> str:
    from selfsup import describe

    if as_json:
        return json_text(describe.evaluator_knob_data(use) if use else describe.evaluator_data())
    return describe.evaluator_knobs(use) if use else describe.evaluators()


def _text(method: str | None, *, families: bool, compared: bool) -> str:
    from selfsup import describe
    from selfsup.method import names

    if compared:
        return describe.proofs([method] if method else names())
    return describe.backbones() if families else describe.knobs(method) if method else describe.catalogue()


def _data(method: str | None, *, families: bool, compared: bool) -> str:
    from selfsup import describe
    from selfsup.families import table
    from selfsup.method import names
    from selfsup.proof import as_dict

    if compared:
        return json_text({name: as_dict(name) for name in ([method] if method else names())})
    if families:
        return json_text([family._asdict() for family in table()])
    return json_text(describe.knob_data(method) if method else describe.methods())


@catalogue.command()
def recipes(
    as_json: Annotated[
        bool,
        typer.Option(
            "--json",
            help="as JSON: {recipes: [{recipe, method, backbone, data, published}], sweeps: [{sweep, question}]}",
        ),
    ] = False,
) -> None:
    """List shipped specs and sweeps: `selfsup run in1k/mae`, `selfsup sweep demo`, `extends: photos/simclr`."""
    from selfsup import recipes
    from selfsup.columns import aligned, as_dicts

    if as_json:
        show_json({"recipes": as_dicts(recipes.recipes()), "sweeps": as_dicts(recipes.sweeps())})
        return
    typer.echo(f"{aligned(recipes.recipes())}\n\n{aligned(recipes.sweeps())}")


@catalogue.command()
def init(
    images: Annotated[
        Path,
        typer.Argument(metavar="IMAGES_DIR", help="a folder of images, or of shards", exists=True, file_okay=False),
    ],
    spec: Annotated[
        Path | None, typer.Argument(metavar="SPEC", help="the spec to write", show_default="the folder's name")
    ] = None,
    method: Annotated[str, typer.Option(help="the objective, as `selfsup describe` lists them")] = "mae",
) -> None:
    """Write a spec to begin with, for a folder of images, and print the commands that come next."""
    from selfsup.pipelines.starter import start

    path = spec or Path(f"{images.absolute().name}.yaml")
    first = start(images, path, method)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with path.open("x") as file:
            file.write(first.text)
    except FileExistsError:
        raise SpecError(f"{path} is there already; name another file, or remove it") from None
    typer.echo(f"{path}: {method} on {first.what}. Next:")
    for command in first.commands:
        typer.echo(f"  {command}")
    typer.echo("Then:")
    typer.echo(aligned([(f"  {command}", made) for command, made in first.later.items()]))


@catalogue.command()
def schema() -> None:
    """Print the JSON schema of spec and sweep files, for editors."""
    typer.echo(recall(home(), "schema", _schema))


def _schema() -> str:
    from selfsup.sweeps.spec.schema import schema

    return json.dumps(schema(), indent=1)


Verdicts = Annotated[bool, typer.Option("--json", help="as JSON: [{contract, broken}]; broken: why, or null")]


@catalogue.command()
def check_method(
    method: Annotated[str, typer.Argument(metavar="METHOD", help="a file, module:Class, or a shipped method")],
    as_json: Verdicts = False,
) -> None:
    """Check that a method keeps its contracts: a line each, on a tiny random batch on the CPU; exit with 1 if not.

    That of two processes is checked once all others are kept.
    """
    from selfsup import contract, process_contract

    _report((contract.check(method), process_contract.check(method)), as_json=as_json)


@catalogue.command()
def check_evaluator(
    use: Annotated[str, typer.Argument(metavar="USE", help="a file, module:Class, or a shipped evaluator")],
    as_json: Verdicts = False,
) -> None:
    """Check that an evaluator keeps its contracts: a line each, on small random features; exit with 1 if not."""
    from selfsup.evaluator_contract import check

    _report((check(use),), as_json=as_json)


@catalogue.command()
def check_augmentation(
    use: Annotated[str, typer.Argument(metavar="USE", help="a file, or module:Class")], as_json: Verdicts = False
) -> None:
    """Check that an augmentation keeps its contracts: a line each, on random images; exit with 1 if not."""
    from selfsup.augmentation_contract import check

    _report((check(use),), as_json=as_json)


def _report(checks: Iterable[Iterable[tuple[str, str]]], *, as_json: bool) -> NoReturn:
    """Show a line for each contract, up to the first of the checks that finds a broken one, and exit."""
    verdicts: list[dict[str, str | None]] = []
    for check in checks:
        for contract, broken in check:
            verdicts.append({"contract": contract, "broken": broken or None})
            if not as_json:
                show(f"no   {contract}: {broken}" if broken else f"yes  {contract}", VERDICTS)
        if any(verdict["broken"] for verdict in verdicts):
            break
    if as_json:
        show_json(verdicts)
    raise typer.Exit(any(verdict["broken"] for verdict in verdicts))

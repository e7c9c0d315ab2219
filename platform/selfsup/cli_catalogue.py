"""The commands that list what specs may name, and check the user's own methods and evaluators."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from selfsup.errors import SpecError

catalogue = typer.Typer()


@catalogue.command()
def describe(
    method: Annotated[str | None, typer.Argument(help="a method; without it, all are listed")] = None,
    families: Annotated[bool, typer.Option("--backbones", help="which of timm's families serve which methods")] = False,
    compared: Annotated[bool, typer.Option("--proof", help="what it is compared with, and its deviations")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="of --proof, for a program")] = False,
) -> None:
    """Show every knob of a method: default, symbol, range, meaning. Without a name, list the methods."""
    if as_json and not compared:
        raise typer.BadParameter("--json goes with --proof")
    if compared:
        _describe_proofs(method, as_json=as_json)
        return
    from selfsup.describe import backbones, catalogue, knobs

    typer.echo(backbones() if families else catalogue() if method is None else knobs(method))


def _describe_proofs(method: str | None, *, as_json: bool) -> None:
    """Print the comparisons and deviations of a method, or of all."""
    from selfsup.describe import proofs
    from selfsup.method import names
    from selfsup.proof import as_dict

    chosen = [method] if method else names()
    typer.echo(json.dumps({name: as_dict(name) for name in chosen}, indent=1) if as_json else proofs(chosen))


@catalogue.command()
def recipes() -> None:
    """List shipped specs and sweeps: `selfsup run in1k/mae`, `selfsup sweep demo`, `extends: photos/simclr`."""
    from selfsup import recipes
    from selfsup.columns import aligned

    typer.echo(f"{aligned(recipes.recipes())}\n\n{aligned(recipes.sweeps())}")


@catalogue.command()
def init(
    images: Annotated[Path, typer.Argument(help="a folder of images, or of shards", exists=True, file_okay=False)],
    spec: Annotated[Path | None, typer.Argument(help="the spec to write", show_default="the folder's name")] = None,
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


@catalogue.command()
def schema() -> None:
    """Print the JSON schema of spec and sweep files, for editors."""
    from selfsup.sweeps.spec.schema import schema

    typer.echo(json.dumps(schema(), indent=1))


@catalogue.command()
def check_method(method: Annotated[str, typer.Argument(help="a file, module:Class, or a shipped method")]) -> None:
    """Check that a method keeps its contracts: a line each, on a tiny random batch on the CPU; exit with 1 if not.

    That of two processes is checked once all others are kept.
    """
    from selfsup import contract, process_contract

    raise typer.Exit(not (_show(contract.check(method)) and _show(process_contract.check(method))))


@catalogue.command()
def check_evaluator(use: Annotated[str, typer.Argument(help="a file, module:Class, or a shipped evaluator")]) -> None:
    """Check that an evaluator keeps its contracts: a line each, on small random features; exit with 1 if not."""
    from selfsup.evaluator_contract import check

    raise typer.Exit(not _show(check(use)))


def _show(contracts: Iterable[tuple[str, str]]) -> bool:
    """Print a line for each contract; return whether all are kept."""
    kept = True
    for contract, broken in contracts:
        typer.echo(f"no   {contract}: {broken}" if broken else f"yes  {contract}")
        kept = kept and not broken
    return kept

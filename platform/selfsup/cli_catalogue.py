"""The commands that show what a spec may name, and check what is the user's own."""

import json
from collections.abc import Iterable
from typing import Annotated

import typer

catalogue = typer.Typer()


@catalogue.command()
def describe(
    method: Annotated[str | None, typer.Argument(help="a method; without it, all are listed")] = None,
    families: Annotated[bool, typer.Option("--backbones", help="which of timm's families serve which methods")] = False,
) -> None:
    """Every knob of a method: default, symbol, range, meaning. Without a name, the methods."""
    from selfsup.describe import backbones, catalogue, knobs

    typer.echo(backbones() if families else catalogue() if method is None else knobs(method))


@catalogue.command()
def recipes() -> None:
    """The specs and sweeps that are shipped: `selfsup run in1k/mae`, `selfsup sweep demo`, `extends: photos/simclr`."""
    from selfsup import recipes
    from selfsup.columns import aligned

    typer.echo(f"{aligned(recipes.recipes())}\n\n{aligned(recipes.sweeps())}")


@catalogue.command()
def schema() -> None:
    """The JSON schema of spec and sweep files, for editors."""
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

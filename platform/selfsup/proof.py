"""Proofs of objectives: the references of each, the tests that compare with them, and its deviations."""

import functools
import importlib
import re
from collections.abc import Mapping
from importlib import resources
from typing import Any, NamedTuple

import yaml

from selfsup import outside
from selfsup.method import METHODS, load
from selfsup.shipped import files

CLAIMED = re.compile(r"Deviations? from the authors' code(?:, in all of them)?: (.*)")
NO_CODE = "There is no authors' code"
# folders of recipes that papers have numbers for
PAPERS = "audioset/", "audioset_clips/", "habitat/", "in1k/", "k400/", "scannet/", "yfcc15m/"
KINDS = ("loss", "loop", "recipe", "libraries")
NOT_RUN = "Not run here"  # in the comment at the head of a recipe


class Claim(NamedTuple):
    """against: what is equal. test: FILE::NAME below tests/, which fails where it is not."""

    against: str
    test: str


class Proof(NamedTuple):
    """Comparisons of one step's loss, of a loop of steps, and of a recipe's settings.

    libraries: "LIBRARY VERSION: how its loss differs", where that is known. recipes: those that train it as its paper
    does. run: the ones of them that were run here. deviations: from its authors' code, that are known; "" where nothing
    is said.
    """

    loss: tuple[Claim, ...]
    loop: tuple[Claim, ...]
    recipe: tuple[Claim, ...]
    libraries: tuple[Claim, ...]
    recipes: tuple[str, ...]
    run: tuple[str, ...]
    deviations: str


def proof(method: str) -> Proof:
    """Return the proof of an objective; no claims for one from outside. Raises SpecError if there is none."""
    claims = {kind: tuple(map(Claim._make, tests.items())) for kind, tests in _claims().get(method, {}).items()}
    recipes = tuple(name for name in files() if name.startswith(PAPERS) and _is_of(name, method))
    run = tuple(name for name in recipes if NOT_RUN not in header(name))
    docstring = importlib.import_module(load(method).__module__).__doc__
    loss, loop, recipe, libraries = (claims.get(kind, ()) for kind in KINDS)
    return Proof(loss, loop, recipe, libraries, recipes, run, deviations_in(docstring))


def as_dict(method: str) -> dict[str, Any]:
    """Return the proof of an objective as JSON data, claims as mappings."""
    known = proof(method)
    claims = {kind: [claim._asdict() for claim in getattr(known, kind)] for kind in KINDS}
    return known._asdict() | claims


def common() -> str:
    """Return the deviations that all shipped objectives share."""
    return deviations_in(importlib.import_module(METHODS).__doc__)


def deviations_in(docstring: str | None) -> str:
    """Return the deviations that a module's docstring names, or its paragraph that says that there is no code."""
    for paragraph in (docstring or "").split("\n\n"):
        line = " ".join(paragraph.split())
        if match := CLAIMED.search(line):
            return match.group(1)[0].upper() + match.group(1)[1:]
        if line.startswith(NO_CODE):
            return line
    return ""


def header(recipe: str) -> str:
    """Return the comment at the head of a shipped spec, as one line."""
    lines = files()[recipe].read_text().splitlines()
    return " ".join(line.removeprefix("#").strip() for line in lines if line.startswith("#"))


def _is_of(recipe: str, method: str) -> bool:
    return not outside.is_outside(method) and f"{recipe.partition('/')[2]}_".startswith(f"{method}_")


@functools.cache
def _claims() -> Mapping[str, Mapping[str, Mapping[str, str]]]:
    """Return methods/proofs.yaml: method -> kind of claim -> claim -> test."""
    claims: dict[str, dict[str, dict[str, str]]] = yaml.safe_load(
        (resources.files(METHODS) / "proofs.yaml").read_text()
    )
    return claims

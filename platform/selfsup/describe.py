"""The output of `selfsup describe`: methods and evaluators, every knob of one, and the proofs of each method."""

import inspect
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from selfsup import evaluations, evaluator, outside
from selfsup.columns import aligned
from selfsup.families import table
from selfsup.knob import REQUIRED, Choice, KnobLine, Range, knob_lines
from selfsup.method import load, names
from selfsup.proof import Claim, Proof, common, proof
from selfsup.spec import run_type

WIDTH = 100  # of wrapped text
ARXIV = re.compile(r"arXiv[:\s]\s*(\d{4}\.\d{4,5})")
ARROWS = {"max": " ↑", "min": " ↓", None: ""}


def catalogue() -> str:
    """Return a line for each method: name, family, backbones, paper, and the first line of its module."""
    lines = [tuple(cell if isinstance(cell, str) else ", ".join(cell) for cell in line.values()) for line in methods()]
    return aligned([("method", "family", "on", "paper", "what it does"), *lines])


def methods() -> list[dict[str, Any]]:
    """Return method, family, backbones, paper and summary, the first line of its module, of each method."""
    lines = []
    for name in names():
        method = load(name)
        keys = ("method", "family", "backbones", "paper", "summary")
        values = (
            name,
            method.family,
            method.backbones,
            f"arXiv:{method.paper}",
            _module_doc(method).partition("\n")[0],
        )
        lines.append(dict(zip(keys, values, strict=True)))
    return lines


def _module_doc(kind: type) -> str:
    """Return the docstring of the module that defines a class."""
    return inspect.getdoc(inspect.getmodule(kind)) or ""


def evaluators() -> str:
    """Return a line for each evaluator: name, paper, features, metrics, first line of its module, parameters."""
    head = ("evaluator", "paper", "reads", "metrics", "what it does, and its parameters")
    lines = [(*list(line.values())[:3], _scales(line["metrics"]), _summary(line)) for line in evaluator_data()]
    return f"{aligned([head, *lines])}\n\n↑ more is better, ↓ less is"


def evaluator_data() -> list[dict[str, Any]]:
    """Return evaluator, paper, reads, metrics, summary, the first line of its module, and knobs of each evaluator.

    paper: the first that the docstring of its module cites. knobs: name -> default.
    """
    lines = []
    for name in evaluator.names():
        kind = evaluator.load(name)
        doc = _module_doc(kind)
        cited = ARXIV.search(doc)
        metrics = {metric: scale._asdict() for metric, scale in kind.metrics.items()}
        keys = ("evaluator", "paper", "reads", "metrics", "summary", "knobs")
        paper, reads = f"arXiv:{cited[1]}" if cited else "", str(kind.reads_of(kind.Hyper()))
        defaults = {knob.path: knob.default for knob in knob_lines(kind.Hyper)}
        values = (name, paper, reads, metrics, doc.partition("\n")[0], defaults)
        lines.append(dict(zip(keys, values, strict=True)))
    return lines


def _summary(line: Mapping[str, Any]) -> str:
    """Return what an evaluator does, and its parameters, such as "... features. k 20, temperature 0.07"."""
    knobs = ", ".join(f"{name} {shown(default)}" for name, default in line["knobs"].items())
    return f"{line['summary']} {knobs}".rstrip()


def _scales(metrics: Mapping[str, Mapping[str, Any]]) -> str:
    """Return metrics with their units and which way is better, such as "top1 % ↑, lr"."""
    return ", ".join(f"{name} {scale['unit']}".rstrip() + ARROWS[scale["better"]] for name, scale in metrics.items())


def backbones() -> str:
    """Return the methods by the kind of encoder that they need, and a line for every family of timm."""
    needs = {"masked": ("vit",), "dense": ("cnn",), "pooled": ("vit", "cnn")}
    lines = [
        f"{kind} methods: {', '.join(name for name in names() if load(name).backbones == encoders)}"
        for kind, encoders in needs.items()
    ]
    head = ("family", "class", "example", "encoder", "masked", "dense", "pooled", "why not")
    return "\n".join([*lines, "", aligned([head, *table()])])


def page() -> str:
    """Return methods/README.md: the catalogue as a page."""
    return f"""# Objectives

One file each; `make catalogue` writes this page from them. `selfsup describe METHOD` shows the knobs of one,
`selfsup recipes` the specs that train it as its paper does.

```
{catalogue()}
```

## What each is compared with

A test fails where a comparison does not hold; `selfsup describe METHOD --proof` names it. Besides, two and four
processes do what one does, a batch in pieces what the whole does, and a restored run goes on bit for bit
(`tests/methods/`).
Deviations from the authors' code that all share: {common()}

{_comparisons()}

## What libraries do otherwise

Numbers of their losses, and weights of terms, do not carry over as they are. A test shows each difference.

{_libraries()}
"""


def _comparisons() -> str:
    """Return a Markdown table: a row for each method."""
    rows = [("objective", "loss against", "loop against", "recipe against", "known deviations"), ("---",) * 5]
    for name in names():
        known = proof(name)
        cells = (_joined(known.loss), _joined(known.loop), f"{_joined(known.recipe)} ({_run(known)})")
        rows.append((name, *cells, known.deviations))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _libraries() -> str:
    """Return a Markdown table: a row for each library whose loss is known to differ from an objective's."""
    rows = [("objective", "library", "its loss"), ("---",) * 3]
    claims = [(name, claim) for name in names() for claim in proof(name).libraries]
    rows += [(name, *claim.against.partition(": ")[::2]) for name, claim in claims]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def proofs(methods: Sequence[str]) -> str:
    """Return what methods are compared with, and their deviations, wrapped. Raises SpecError for an unknown one."""
    return "\n\n".join("\n".join(_proof(name)) for name in methods)


def _proof(method: str) -> Iterator[str]:
    known = proof(method)
    yield method
    kinds = {"loss against": known.loss, "loop against": known.loop, "recipe against": known.recipe}
    for label, claims in (kinds | ({"libraries": known.libraries} if known.libraries else {})).items():
        yield from _wrapped(label, _joined(claims))
        yield from (f"{'':18}tests/{claim.test}" for claim in claims)
    yield from _wrapped("recipes", _run(known))
    yield from _wrapped("deviations", known.deviations or "none is named")


def _run(known: Proof) -> str:
    """Return the recipes, and whether they were run here."""
    parts = {"run here": known.run, "not run here": [name for name in known.recipes if name not in known.run]}
    return "; ".join(f"{', '.join(recipes)}: {words}" for words, recipes in parts.items() if recipes) or "none"


def _joined(claims: Sequence[Claim]) -> str:
    return "; ".join(claim.against for claim in claims) or "nothing yet"


def _wrapped(label: str, text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=f"  {label:16}", subsequent_indent=" " * 18)


def knobs(method: str) -> str:
    """Return a line for every knob in a spec of this method. Raises SpecError where there is no such method."""
    return _knob_table(knob_lines(run_type(method)))


def knob_data(method: str) -> list[dict[str, Any]]:
    """Return the lines of `knobs` as data; the default of a required one is None."""
    return _knob_data(knob_lines(run_type(method)))


def evaluator_knobs(use: str) -> str:
    """Return a line for every knob of an evaluation. Raises SpecError where there is no such evaluator."""
    return _knob_table(_evaluator_lines(use))


def evaluator_knob_data(use: str) -> list[dict[str, Any]]:
    """Return the lines of `evaluator_knobs` as data."""
    return _knob_data(_evaluator_lines(use))


def _evaluator_lines(use: str) -> tuple[KnobLine, ...]:
    evaluator.load(use)  # says why where it cannot
    return knob_lines(evaluations.kind(use), f"evals.{outside.short(use)}.")


def _knob_table(lines: Sequence[KnobLine]) -> str:
    return aligned([("knob", "default", "symbol", "allowed", "a sweep looks in", "meaning"), *map(_line, lines)])


def _knob_data(lines: Sequence[KnobLine]) -> list[dict[str, Any]]:
    data = []
    for knob in lines:
        required = knob.default is REQUIRED
        data.append(asdict(knob) | {"required": required, "default": None if required else knob.default})
    return data


def _line(knob: KnobLine) -> tuple[str, ...]:
    default = "required" if knob.default is REQUIRED else shown(knob.default)
    return knob.path, default, knob.symbol or "", allowed(knob), _looked_in(knob.sweep), knob.doc


def allowed(knob: KnobLine) -> str:
    """Return the values of a knob, such as "integer > 0 | null"."""
    kind, null, _ = knob.type.partition(" | null")
    return f"{kind} {knob.bounds}".rstrip() + null


def _looked_in(sweep: Range | Choice | None) -> str:
    match sweep:
        case Range(low=low, high=high, log=log):
            return f"{low:g} to {high:g}{', log' if log else ''}"
        case Choice(values=values):
            return ", ".join(str(value) for value in values)
    return ""


def shown(value: object) -> str:
    """Return a default as a spec spells it."""
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case tuple():
            return f"[{', '.join(map(shown, value))}]"
        case "":
            return '""'
    return str(value)

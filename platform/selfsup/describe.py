"""What `selfsup describe` shows: the methods, and every knob of one."""

import inspect

from selfsup.columns import aligned
from selfsup.families import table
from selfsup.knob import REQUIRED, Choice, Described, Range, described
from selfsup.method import load, names
from selfsup.spec import run_type


def catalogue() -> str:
    """A line a method: its name, family, backbones, paper and what it does."""
    lines = []
    for name in names():
        method = load(name)
        says = (inspect.getdoc(inspect.getmodule(method)) or "").partition("\n")[0]
        lines.append((name, method.family, ", ".join(method.backbones), f"arXiv:{method.paper}", says))
    return aligned([("method", "family", "on", "paper", "what it does"), *lines])


def backbones() -> str:
    """Return which methods need which kind of encoder, and a line for every family of timm: which of them it serves."""
    needs = {"masked": ("vit",), "dense": ("cnn",), "pooled": ("vit", "cnn")}
    lines = [
        f"{kind} methods: {', '.join(name for name in names() if load(name).backbones == encoders)}"
        for kind, encoders in needs.items()
    ]
    head = ("family", "class", "example", "encoder", "masked", "dense", "pooled", "why not")
    return "\n".join([*lines, "", aligned([head, *table()])])


def page() -> str:
    """Return methods/README.md: the catalogue, for who reads the folder."""
    return f"""# Objectives

One file each; `make catalogue` writes this page from them. `selfsup describe METHOD` shows the knobs of one,
`selfsup recipes` the specs that train it as its paper does.

```
{catalogue()}
```
"""


def knobs(method: str) -> str:
    """A line for every knob that a spec of this method has. Raises SpecError for a method that does not exist."""
    lines = [_line(knob) for knob in described(run_type(method))]
    return aligned([("knob", "default", "symbol", "allowed", "a sweep looks in", "meaning"), *lines])


def _line(knob: Described) -> tuple[str, ...]:
    default = "required" if knob.default is REQUIRED else _shown(knob.default)
    allowed = " ".join(part for part in (knob.type, knob.bounds) if part)
    return knob.path, default, knob.symbol or "", allowed, _looked_in(knob.sweep), knob.doc


def _looked_in(sweep: Range | Choice | None) -> str:
    match sweep:
        case Range(low=low, high=high, log=log):
            return f"{low:g} to {high:g}{', log' if log else ''}"
        case Choice(values=values):
            return ", ".join(str(value) for value in values)
    return ""


def _shown(value: object) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)

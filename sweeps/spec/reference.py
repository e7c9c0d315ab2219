"""The page sweeps/README.md: every key of spec and sweep files, from the knobs that check them."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import groupby

from selfsup.describe import allowed, shown
from selfsup.knob import REQUIRED, KnobLine, knob_lines
from selfsup.spec import spec_type
from selfsup.sweeps.spec.schema import TEXTS
from selfsup.sweeps.spec.sweepfile import SweepHeader

METHOD = "mae"  # whose spec is shown; the keys outside `hyper` are those of all, their defaults are the method's own
HEADING = ("key", "default", "allowed", "meaning")


def page() -> str:
    """Return the page."""
    return f"""# Keys of spec and sweep files

`make catalogue` writes this page from the code that checks the files; `selfsup schema` prints the same for editors, and
`selfsup describe METHOD` the keys under `hyper`, with a method's own defaults for the others (here: `{METHOD}`'s).

A spec is a sweep of one arm: every key of a spec may stand in a sweep. `-s train.batch=64` sets one from the command
line, above all files. Paths under `data` and `weights` are relative to the file that says them.

| word | meaning |
|---|---|
| run | one training from one seed, with its evaluations; its id says what it computes |
| arm | one setting of a sweep, such as `mask_ratio=0.5`, with a run for each seed |
| study | the arms around one spec; a sweep has one, or those under `studies` |
| stage | a part of a run that is computed once and kept: pre-training, features, each evaluation |

## Sweeps

{_table(_sweep_lines())}

A path is that of the keys below, such as `hyper.mask_ratio` or `backbone.depth`. In a search, any of them takes
`{{search: auto}}` (the range that `describe` shows), `{{search: [1, 4, 8]}}` or
`{{search: {{low: 1e-4, high: 1e-2, log: true}}}}`.

## Specs

{_sections()}
"""


def _sweep_lines() -> Iterator[KnobLine]:
    yield from (KnobLine(path, kind, None, None, "", None, True, text) for path, (kind, text) in TEXTS.items())
    yield from knob_lines(SweepHeader)


def _sections() -> str:
    lines = list(_once(line for line in knob_lines(spec_type(METHOD)) if not line.path.startswith("hyper.")))
    whole = [line for line in lines if "." not in line.path and not _is_group(line, lines)]
    parts = [_table(sorted(whole, key=lambda line: line.default is not REQUIRED))]
    inner = (line for line in lines if line not in whole)
    for section, members in groupby(inner, key=lambda line: line.path.partition(".")[0]):
        parts.append(f"### {section}\n\n{_table(members)}")
    return "\n\n".join(parts)


def _once(lines: Iterable[KnobLine]) -> Iterator[KnobLine]:
    """Yield lines; what all evaluations have in common is among them once, as of NAME, after the others."""
    common = dict[str, KnobLine]()
    for section, members in groupby(lines, key=lambda line: line.path.partition(".")[0]):
        for line in members:
            _, name, *rest = (*line.path.split("."), "", "")
            if section == "evals" and rest[0] in ("use", "data"):
                path = line.path.replace(f".{name}.", ".NAME.", 1)
                common.setdefault(path, replace(line, path=path))
            else:
                yield line
        yield from common.values()
        common.clear()


def _is_group(line: KnobLine, lines: Iterable[KnobLine]) -> bool:
    return any(other.path.startswith(f"{line.path}.") for other in lines)


def _table(lines: Iterable[KnobLine]) -> str:
    rows = [HEADING, ("---",) * len(HEADING), *map(_row, lines)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _row(line: KnobLine) -> tuple[str, ...]:
    default = "required" if line.default is REQUIRED else f"`{shown(line.default)}`"
    return f"`{line.path}`", default, allowed(line).replace("|", "or"), line.doc

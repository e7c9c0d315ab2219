"""The report as text for papers, repositories, terminals and data frames; equal results give equal bytes."""

import io
import json
from collections.abc import Iterator, Sequence
from itertools import zip_longest

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from selfsup.sweeps.report import artificial, searching, uncertainty
from selfsup.sweeps.report.cells import NOTHING, Cell
from selfsup.sweeps.report.columns import Block, Column, blocks, failures, folded, title, verdicts
from selfsup.sweeps.report.latex import latex
from selfsup.sweeps.report.legend import console_legend
from selfsup.sweeps.report.provenance import MADE_WITH, command, made_with, methods
from selfsup.sweeps.report.table import COST, Ablation, Table
from selfsup.sweeps.result import Result

__all__ = ["console", "csv", "frame", "latex", "markdown", "parquet"]

WIDEST = 160  # letters of a line in a terminal
UNITS = {
    "seconds": "seconds",
    "gpu_hours": "GPU-hours",
    "samples_per_second": "samples/s",
    "peak_memory_mib": "MiB",
    "energy_wh": "Wh",
}
assert tuple(UNITS) == COST


def markdown(ablation: Ablation) -> str:
    sweep = ablation.sweep
    parts = [f"# {sweep.name}", sweep.question, _bullets([*searching.sentences(ablation), *verdicts(ablation)])]
    if sweep.search:
        parts += ["## search", _bullets([f"{name}: {text}" for name, text in searching.about(sweep.search).items()])]
    parts += [part for title, columns in searching.blocks(ablation) for part in (f"## {title}", _pipe_table(columns))]
    for table, after in zip_longest(ablation.tables, ablation.tables[1:]):
        parts += [f"## {title(table)}", *_markdown_table(table), _bullets(failures(table))]
        parts += [text for block in uncertainty.blocks([table]) for text in _apart(block)]
        parts += [] if after and after.note == table.note else [table.note]
    parts += ["## Integrity", _bullets(list(_integrity_lines(ablation))), "## Notes", _bullets(methods(ablation))]
    return "\n\n".join(part for part in parts if part) + "\n"


def console(ablation: Ablation) -> str:
    """Write aligned tables for a terminal; the default is in brackets."""
    search = ablation.sweep.search
    about = [f"{name.lower():<8}{text}" for name, text in searching.about(search).items()] if search else []
    parts = ["\n".join(about), "\n".join(searching.sentences(ablation))]
    parts += ["\n".join([title, *_aligned(columns)]) for title, columns in searching.blocks(ablation)]
    for table in ablation.tables:
        lines = [title(table)]
        for heading, columns in blocks(table, default="[{}]", mark=_starred):
            lines += [*filter(None, [heading]), *(line for part in folded(columns, WIDEST) for line in _aligned(part))]
        parts.append("\n".join([*lines, *failures(table), *table.verdict]))
    made = artificial.note(ablation.integrity["data"]) if ablation.tables else ""
    return "\n\n".join(filter(None, [*parts, made, console_legend(ablation.tables)]))


def frame(ablation: Ablation) -> pa.Table:
    """Return the long form: a row per run and metric. A planned metric that is missing has a row without a value.

    kind: "trial" for a run that a search proposed, whose arm is its name; "run" for any other.
    """
    rows = [*searching.rows(ablation.sweep), *_rows(ablation)]
    texts = ("sweep", "kind", "study", "arm", "changed", "metric", "status", "reason", "id", "run", "command")
    names = [(name, pa.string()) for name in (*texts, *MADE_WITH)]
    schema = pa.schema([*names, ("default", pa.bool_()), ("seed", pa.int64()), ("value", pa.float64())])
    return pa.Table.from_pylist(rows, schema=schema)


def csv(ablation: Ablation) -> bytes:
    out = io.BytesIO()
    pyarrow.csv.write_csv(frame(ablation), out)
    return out.getvalue()


def parquet(ablation: Ablation) -> bytes:
    out = io.BytesIO()
    pyarrow.parquet.write_table(frame(ablation), out)
    return out.getvalue()


def _bullets(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _integrity_lines(ablation: Ablation) -> Iterator[str]:
    integrity, sweep = ablation.integrity, ablation.sweep
    yield from _run_lines(ablation) if sweep.studies else [f"made by `{sweep.command}`"]
    data = {f"{use} data": [" ".join(filter(None, pair)) for pair in pairs] for use, pairs in integrity["data"].items()}
    for name, values in {"code": integrity["commits"], "hardware": integrity["hardware"], **data}.items():
        yield f"{name}: {', '.join(values) or 'not known'}"
    yield from (f"code: {text}" for text in integrity["mixed"])


def _run_lines(ablation: Ablation) -> Iterator[str]:
    integrity, sweep = ablation.integrity, ablation.sweep
    yield f"{integrity['done']} of {integrity['planned']} runs done; made by `{sweep.command}`"
    yield f"plan {sweep.digest}, {f'registered {when}' if (when := integrity['registered']) else 'not registered yet'}"
    yield from integrity["changes"]
    yield from integrity["deviations"]
    differing = [f"{arm}: {line}" for arm, lines in integrity["differences"].items() for line in lines]
    yield from differing
    if not differing:
        code = ", and the code" * bool(integrity["mixed"])
        yield f"{len(integrity['differences'])} arms differ from their default in nothing but the named factors{code}"


def _markdown_table(table: Table) -> Iterator[str]:
    for heading, columns in blocks(table, default="{} (default)", mark=_bold):
        whole = columns if heading else [*columns, *_costs(table)]
        yield heading and f"**{heading}**"
        yield _pipe_table(whole)


def _apart(block: Block) -> Iterator[str]:
    yield f"**{block.title}**"
    yield _pipe_table(block.columns)
    yield uncertainty.COVERS


def _pipe_table(columns: Sequence[Column]) -> str:
    rows = [[column.head for column in columns], [":--" if column.key else "--:" for column in columns]]
    rows += map(list, zip(*(column.texts for column in columns), strict=True))
    return "\n".join("| " + " | ".join(text.replace("|", r"\|") for text in row) + " |" for row in rows)


def _costs(table: Table) -> Iterator[Column]:
    for name, unit in UNITS.items():
        if any(name in line.cost for line in table.lines):
            yield Column("", unit, [_digits(line.cost[name]) if name in line.cost else NOTHING for line in table.lines])


def _digits(number: float) -> str:
    """Return three significant digits or more: `1.23`, `61.5`, `5447`."""
    return f"{number:.0f}" if number >= 100 else f"{number:.3g}"


def _aligned(columns: Sequence[Column]) -> Iterator[str]:
    """Align labels to the left and numbers to the right."""
    for row in zip(*([column.head, *column.texts] for column in columns), strict=True):
        cells = zip(row, columns, strict=True)
        aligned = (text.ljust(column.width) if column.key else text.rjust(column.width) for text, column in cells)
        yield "  ".join(aligned).rstrip()


def _bold(cell: Cell) -> str:
    return f"**{cell.text}{' ‡' * bool(cell.behind)}**" if cell.best else cell.text + " †" * cell.tied


def _starred(cell: Cell) -> str:
    return cell.text + ("‡" if cell.behind else "*" if cell.best else "†" if cell.tied else " ")


def _rows(ablation: Ablation) -> Iterator[dict[str, object]]:
    sweep, results = ablation.sweep, {result.id: result for result in ablation.results}
    arms = [("", arm) for arm in sweep.baselines] + [(study.name, arm) for study in sweep.studies for arm in study.arms]
    for study, arm in arms:
        for seed, key in sorted(arm.ids.items()):
            run = results.get(key) or Result(key, seed, None, "pending", "", {}, {}, {}, {})
            for metric in dict.fromkeys([*sweep.metrics, *sorted(run.metrics)]):
                yield {
                    "sweep": sweep.name,
                    "kind": "run",
                    "study": study,
                    "arm": arm.name,
                    "default": bool(study) and arm.default,
                    "changed": json.dumps(dict(arm.changed), sort_keys=True),
                    "seed": seed,
                    "metric": metric,
                    "value": run.metrics.get(metric),
                    "status": run.status,
                    "reason": run.reason,
                    "id": key,
                    "run": run.run,
                    "command": command(sweep, key),
                    **made_with(run),
                }

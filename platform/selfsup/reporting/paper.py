"""A report as text for papers, repositories, terminals and data frames; the same bytes for the same results."""

import io
import json
from collections.abc import Iterator, Sequence
from itertools import zip_longest

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from selfsup.reporting.cells import NOTHING, Cell
from selfsup.reporting.columns import Column, columns_of, failures, title, verdicts
from selfsup.reporting.latex import latex
from selfsup.reporting.results import Result
from selfsup.reporting.tables import COST, Ablation, Table

__all__ = ["console", "csv", "frame", "latex", "markdown", "parquet"]

LEGEND = "* best   † not shown to be below the best   Δ to the default   p adjusted for all arms   [default]"
UNITS = {
    "seconds": "seconds",
    "gpu_hours": "GPU-hours",
    "images_per_second": "images/s",
    "peak_memory_mib": "MiB",
}
assert tuple(UNITS) == COST


def markdown(ablation: Ablation) -> str:
    sweep, counted = ablation.sweep, ablation.integrity
    blocks = [f"# {sweep.name}", sweep.question, "\n".join(f"- {said}" for said in verdicts(ablation))]
    for table, after in zip_longest(ablation.tables, ablation.tables[1:]):
        blocks += [f"## {title(table)}", _pipes(table), "\n".join(f"- {said}" for said in failures(table))]
        blocks += [] if after and after.note == table.note else [table.note]
    done = f"{counted['finished']} of {counted['planned']} runs finished"
    blocks.append(f"{done}; plan {sweep.digest}; `selfsup sweep {sweep.spec}`")
    return "\n\n".join(block for block in blocks if block) + "\n"


def console(ablation: Ablation) -> str:
    """Aligned; the default is in brackets."""
    blocks = []
    for table in ablation.tables:
        columns = columns_of(table, default="[{}]", mark=_starred)
        blocks.append("\n".join([title(table), *_aligned(columns), *failures(table), *table.verdict]))
    return "\n\n".join([*filter(None, blocks), LEGEND])


def frame(ablation: Ablation) -> pa.Table:
    """Long form: a row for each run and metric. A metric that was asked for and is missing has a row without value."""
    rows = list(_rows(ablation))
    names = [
        (name, pa.string()) for name in ("sweep", "study", "arm", "changed", "metric", "status", "reason", "id", "run")
    ]
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


def _pipes(table: Table) -> str:
    columns = columns_of(table, default="{} (default)", mark=_bold)
    columns += [
        Column("", unit, [f"{line.cost[name]:.3g}" if name in line.cost else NOTHING for line in table.lines])
        for name, unit in UNITS.items()
        if any(name in line.cost for line in table.lines)
    ]
    rows = [[column.head for column in columns], [":--", *["--:"] * (len(columns) - 1)]]
    rows += map(list, zip(*(column.texts for column in columns), strict=True))
    return "\n".join("| " + " | ".join(text.replace("|", r"\|") for text in row) + " |" for row in rows)


def _aligned(columns: Sequence[Column]) -> Iterator[str]:
    """Labels to the left, numbers to the right."""
    filled = [[column.head, *column.texts] for column in columns]
    widths = [max(map(len, texts)) for texts in filled]
    for row in zip(*filled, strict=True):
        label, *rest = zip(row, widths, strict=True)
        yield "  ".join([label[0].ljust(label[1]), *(text.rjust(width) for text, width in rest)]).rstrip()


def _bold(cell: Cell) -> str:
    return f"**{cell.text}**" if cell.best else cell.text + " †" * cell.tied


def _starred(cell: Cell) -> str:
    return cell.text + ("*" if cell.best else "†" if cell.tied else " ")


def _rows(ablation: Ablation) -> Iterator[dict[str, object]]:
    sweep, found = ablation.sweep, {result.id: result for result in ablation.results}
    arms = [("", arm) for arm in sweep.baselines] + [(study.name, arm) for study in sweep.studies for arm in study.arms]
    for study, arm in arms:
        for seed, key in sorted(arm.ids.items()):
            run = found.get(key) or Result(key, seed, None, "planned", "", {}, {}, {}, {})
            for metric in dict.fromkeys([*sweep.metrics, *sorted(run.metrics)]):
                yield {
                    "sweep": sweep.name,
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
                }

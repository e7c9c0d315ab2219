"""The result of the check as tables of Markdown, for RESULTS.md."""

from collections.abc import Iterator, Sequence
from typing import Any

from gpu.place import Row

SPEED = "objective backbone batch images_per_second target mfu tflops milliseconds memory_gib idle warmup_seconds error"
CHECKED = "objective backbone precision loss_error loss_limit grad_error grad_limit weight broken error"
COLUMNS = {  # of parts whose rows are all shown; of others, those that failed and the one nearest to its limit
    "speed": SPEED,
    "compiled_speed": SPEED,
    "scores": "evaluation score off ok error",
    "stream": "objective backbone images_per_second input_wait error",
    "compiled": "objective ok loss_error loss_limit seconds error",
    "packed": "backbone apart_ms packed_ms ratio error",
    "run": "objective logged error",
}


def markdown(result: dict[str, Any]) -> str:
    """Return a heading for the machine, and a section for each part."""
    machine = result["machine"]
    title = f"## {machine['card']}, {machine['date']}, commit {machine['commit']}"
    facts = ", ".join(f"{name} {value}" for name, value in machine.items() if value is not None)
    parts = [section(name, part) for name, part in result.items() if name != "machine"]
    return "\n\n".join([title, facts, *parts]) + "\n"


def section(name: str, part: dict[str, Any]) -> str:
    """Return a part's table, where the time of its operations goes, and what was skipped."""
    rows = [row for row in part["rows"] if "skipped" not in row]
    checked = sum("ok" in row for row in rows)
    heading = f"### {name}: {sum(row.get('ok', False) for row in rows)} of {checked}, {part['seconds']:.0f} s"
    shown = rows if name in COLUMNS else failed(rows)
    lines = [heading, "", *table(COLUMNS.get(name, CHECKED).split(), [row | row.get("where", {}) for row in shown])]
    lines += [f"- {row['objective']}, {row['backbone']}: {tops(row)}" for row in rows if "where" in row]
    return "\n".join([*lines, "", *(f"- skipped: {row['skipped']}" for row in part["rows"] if "skipped" in row)])


def failed(rows: Sequence[Row]) -> list[Row]:
    """Return the rows that failed, and of the others the one whose gradient is nearest to its limit."""
    near = [row for row in rows if row.get("ok") and "grad_limit" in row]
    nearest = sorted(near, key=lambda row: row["grad_error"] / row["grad_limit"])[-1:]
    return [row for row in rows if not row.get("ok", True)] + nearest


def tops(row: Row) -> str:
    """Return the operations in which the device spends most, with their shares."""
    return ", ".join(f"{name} {share:.1%}" for name, share in row["where"]["top"].items())


def table(columns: Sequence[str], rows: Sequence[Row]) -> Iterator[str]:
    """Yield the lines of a table of the columns that any row has."""
    columns = [name for name in columns if any(row.get(name) not in (None, {}) for row in rows)]
    if columns:
        yield "| " + " | ".join(name.replace("_", " ") for name in columns) + " |"
        yield "|" + "---|" * len(columns)
    for row in rows:
        yield "| " + " | ".join(_cell(row.get(name)) for name in columns) + " |"


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"
    return "" if value in (None, {}) else str(value).replace("|", "/")

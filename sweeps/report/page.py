"""The report as one HTML page: offline, without scripts, light and dark, printable. The text is page.html."""

import base64
import re
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from importlib.resources import files
from statistics import stdev
from typing import NamedTuple

from jinja2 import Environment, StrictUndefined

from selfsup.sweeps.report import searching
from selfsup.sweeps.report.cells import Cell
from selfsup.sweeps.report.columns import expected, failures, keys, verdicts
from selfsup.sweeps.report.crossed import crossing
from selfsup.sweeps.report.figures import Drawing, svg
from selfsup.sweeps.report.plots import INK
from selfsup.sweeps.report.provenance import made_with, methods, mixed, settings, traces
from selfsup.sweeps.report.table import Ablation, Line, Table
from selfsup.sweeps.report.tables import WANTED
from selfsup.sweeps.report.wording import (
    counts,
    heading,
    interval,
    label,
    named,
    probability,
    words,
)
from selfsup.sweeps.spec.study import Study

COST = {  # factor to the unit, format, unit
    "gpu_hours": (1.0, ",.2f", "GPU-h"),
    "seconds": (1 / 60, ",.1f", "min"),
    "energy_wh": (1 / 1000, "#.3g", "kWh"),
    "images_per_second": (1.0, ",.0f", "images/s"),
    "peak_memory_mib": (1 / 1024, ",.1f", "GiB"),
}
SPENT = ("gpu_hours", "seconds", "energy_wh")  # the others are how


class Group(NamedTuple):
    """A study with its tables and drawings. study: None for methods side by side."""

    study: Study | None
    tables: Sequence[Table]
    drawings: Sequence[Drawing]


def page(ablation: Ablation, drawings: Sequence[Drawing], pictures: Mapping[str, bytes]) -> str:
    """pictures: arm name -> PNG of its reconstructions."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    ours = (against, costs, inline, papers, planned, seeds, sizes)
    filters = (*ours, crossing, failures, heading, keys, label, made_with, named, words)
    environment.filters |= {each.__name__: each for each in filters}
    template = environment.from_string(files("selfsup.sweeps.report").joinpath("page.html").read_text("utf-8"))
    return template.render(
        ablation=ablation,
        sweep=ablation.sweep,
        WANTED=WANTED,
        groups=list(groups(ablation, drawings)),
        verdicts=[unbroken(said) for said in (*searching.sentences(ablation), *verdicts(ablation))],
        about=searching.about(ablation.sweep.search) if ablation.sweep.search else {},
        blocks=searching.blocks(ablation),
        searched=[drawing for drawing in drawings if not drawing.study],
        traces=list(traces(ablation)),
        mixed=mixed(ablation),
        settings=dict(settings(ablation)),
        notes=[*methods(ablation), *dict.fromkeys(table.note for table in ablation.tables)],
        pictures={name: base64.b64encode(png).decode() for name, png in pictures.items()},
    )


def groups(ablation: Ablation, drawings: Sequence[Drawing]) -> Iterator[Group]:
    for study in (*ablation.sweep.studies, None):
        name = study.name if study else ""
        tables = [table for table in ablation.tables if table.study == name]
        if tables:
            yield Group(study, tables, [drawing for drawing in drawings if study and drawing.study == name])


def unbroken(text: str) -> str:
    """With no line ending beside a sign, or within a pair such as (0.1, 64)."""
    return re.sub(r"\(([^\s()]+), ([^\s()]+)\)", "(\\1,\u00a0\\2)", re.sub(r" ([±<>=×]) ", "\u00a0\\1\u00a0", text))


def against(cell: Cell) -> str:
    """`−2.10 ± 0.44, p = 0.004`: the difference to the default; "" where there is none."""
    if cell.difference is None:
        return ""
    text = interval(cell.difference, cell.difference_half, sign="+").replace("-", "−")
    return text + ("" if cell.p is None else f", {probability(cell.p)}")


def seeds(cell: Cell) -> str:
    told = ", ".join(f"seed {seed}: {value:.4g}" for seed, value in cell.values.items()) or "no finished seed"
    return told + (f"; deviation {stdev(cell.values.values()):.2g}" if len(cell.values) > 1 else "")


def papers(table: Table) -> dict[str, list[str]]:
    """metric -> a paper's numbers, line by line; of those metrics that have some."""
    columns = {metric: [line.cells[metric] for line in table.lines] for metric in table.metrics}
    return {
        metric: expected(cells) for metric, cells in columns.items() if any(cell.expected is not None for cell in cells)
    }


def sizes(table: Table, metric: str) -> str:
    """Of the cells under a metric: `2`, or `1 to 2`."""
    return counts([line.cells[metric].n for line in table.lines])


def planned(tables: Sequence[Table]) -> str:
    """`2 seeds`"""
    cells = [cell for table in tables for line in table.lines for cell in line.cells.values()]
    number = counts([cell.planned for cell in cells])
    return f"{number} seed{'s' * (number != '1')}"


def costs(line: Line) -> tuple[str, str]:
    """`"0.13 GPU-h, 0.08 kWh"` and `"5,447 images/s, 8.0 GiB"`, as far as known; minutes where no GPU was used."""
    unused = "seconds" if line.cost.get("gpu_hours") else "gpu_hours"
    known = {name: value for name, value in line.cost.items() if name != unused}
    told = {
        name: f"{f'{known[name] * factor:{form}}'.rstrip('.')} {unit}"
        for name, (factor, form, unit) in COST.items()
        if name in known
    }
    spent, how = ([text for name, text in told.items() if (name in SPENT) is wanted] for wanted in (True, False))
    return ", ".join(spent), ", ".join(how)


def inline(drawing: Drawing) -> str:
    """The figure as part of a page: in the page's own ink, named for those who cannot see it, with ids of its own."""
    own = re.sub(r"\W", "_", f"{drawing.study}-{drawing.kind}-")
    text = svg(drawing.figure).decode()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r'(id="|href="#|url\(#)', rf"\g<1>{own}", text).replace(INK, "currentColor")
    return text.replace("<svg", f'<svg role="img" aria-label="{escape(drawing.caption)}"', 1)

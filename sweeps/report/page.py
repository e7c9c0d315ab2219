"""The report as one HTML page: offline, light and dark, printable, readable without its script.

Its text is in page.html, its style in page.css; hover.js shows the values of figures' points.
"""

import base64
import re
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from importlib.resources import files
from statistics import stdev
from typing import NamedTuple

from jinja2 import Environment, StrictUndefined

from selfsup.progress import several
from selfsup.sweeps.report import searching, uncertainty
from selfsup.sweeps.report.cells import Cell
from selfsup.sweeps.report.columns import compared, expected, failures, name_columns, verdicts
from selfsup.sweeps.report.crossed import crossing
from selfsup.sweeps.report.figures import Drawing
from selfsup.sweeps.report.legend import marks
from selfsup.sweeps.report.plots import INK
from selfsup.sweeps.report.provenance import made_with, methods, mixed, run_origins, settings
from selfsup.sweeps.report.table import Ablation, Line, Table
from selfsup.sweeps.report.tables import WANTED
from selfsup.sweeps.report.wording import (
    counts,
    heading,
    label,
    named,
    words,
)
from selfsup.sweeps.spec.study import Study

COST = {  # factor to the unit, format, unit
    "gpu_hours": (1.0, ",.2f", "GPU-h"),
    "seconds": (1 / 60, ",.1f", "min"),
    "energy_wh": (1 / 1000, "#.3g", "kWh"),
    "samples_per_second": (1.0, ",.0f", "samples/s"),
    "peak_memory_mib": (1 / 1024, ",.1f", "GiB"),
}
SHOWS = {  # kind of a picture: title, and what it shows
    "reconstructions": (
        "Reconstructions",
        "The same samples under the same masks for every arm: masked, predicted, original; each kind of data in turn.",
    ),
    "neighbors": (
        "Nearest neighbors",
        "The same validation samples for every arm; below each the four of the largest cosine.",
    ),
    "patches": (
        "Patches",
        "The same samples, and the first three principal components of their patches as red, green and blue.",
    ),
    "attention": (
        "Attention",
        "The same samples; what the class token reads of the patches in the last block: mean, then heads.",
    ),
    "map": (
        "Maps",
        "t-SNE of the features of validation samples; a color is a class. Distances between groups say nothing.",
    ),
    "painted": (
        "Painted from features",
        "The same validation images for every arm; below each what a diffusion model paints from its feature alone, "
        "from four draws of noise, the same for all: what stays the same is what the feature knows. Explained: how "
        "much of the variance of pixels over images the paintings predict. Shared: how much of the paintings' own is "
        "between images, not between draws; where it is far more, the model varies too little: raise paint.steps.",
    ),
}
SPENT = ("gpu_hours", "seconds", "energy_wh")  # the others are how


class StudySection(NamedTuple):
    """A study with its tables and figures. study: None for the table of methods."""

    study: Study | None
    tables: Sequence[Table]
    drawings: Sequence[Drawing]


def page(ablation: Ablation, drawings: Sequence[Drawing], pictures: Mapping[str, Mapping[str, bytes]]) -> str:
    """Render the page. pictures: kind -> arm name -> PNG."""
    origins = list(run_origins(ablation))
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    own_filters = (compared, costs, inline_svg, marks, measured, paper_numbers, seeds, seed_counts)
    filters = (*own_filters, crossing, failures, heading, name_columns, label, made_with, named, several, words)
    environment.filters |= {filter_.__name__: filter_ for filter_ in filters}
    return environment.from_string(_asset("page.html")).render(
        asset=_asset,
        ablation=ablation,
        sweep=ablation.sweep,
        WANTED=WANTED,
        groups=list(groups(ablation, drawings)),
        verdicts=[unbroken(sentence) for sentence in (*searching.sentences(ablation), *verdicts(ablation))],
        about=searching.about(ablation.sweep.search) if ablation.sweep.search else {},
        blocks=searching.blocks(ablation),
        searched=[drawing for drawing in drawings if not drawing.study],
        run_origins=origins,
        targets={origin.result.id: origin.target for origin in origins},
        mixed=mixed(ablation),
        settings=dict(settings(ablation)),
        notes=[*methods(ablation), *dict.fromkeys(table.note for table in ablation.tables)],
        apart=uncertainty.blocks,
        apart_covers=uncertainty.COVERS,
        pictures={
            kind: {name: base64.b64encode(png).decode() for name, png in by_arm.items()}
            for kind, by_arm in pictures.items()
        },
        shows=SHOWS,
    )


def _asset(name: str) -> str:
    return files("selfsup.sweeps.report").joinpath(name).read_text("utf-8")


def groups(ablation: Ablation, drawings: Sequence[Drawing]) -> Iterator[StudySection]:
    for study in (*ablation.sweep.studies, None):
        name = study.name if study else ""
        tables = [table for table in ablation.tables if table.study == name]
        if tables:
            yield StudySection(study, tables, [drawing for drawing in drawings if study and drawing.study == name])


def unbroken(text: str) -> str:
    """Replace spaces around a sign, and within a pair such as (0.1, 64), by ones that do not break."""
    return re.sub(r"\(([^\s()]+), ([^\s()]+)\)", "(\\1,\u00a0\\2)", re.sub(r" ([±<>=×]) ", "\u00a0\\1\u00a0", text))


def seeds(cell: Cell) -> str:
    text = ", ".join(f"seed {seed}: {value:.4g}" for seed, value in cell.values.items()) or "no finished seed"
    return text + (f"; deviation {stdev(cell.values.values()):.2g}" if len(cell.values) > 1 else "")


def paper_numbers(table: Table) -> dict[str, list[str]]:
    """-> metric: the paper's numbers, row by row; of metrics that have some."""
    columns = {metric: [line.cells[metric] for line in table.lines] for metric in table.metrics}
    return {
        metric: expected(cells) for metric, cells in columns.items() if any(cell.expected is not None for cell in cells)
    }


def seed_counts(table: Table, metric: str) -> str:
    """Return the number of seeds of the cells under a metric: `2`, or `1 to 2`."""
    return counts([line.cells[metric].n for line in table.lines])


def measured(tables: Sequence[Table]) -> str:
    """Return `Mean ± half of its 95 % interval over 2 seeds`; without an interval where no cell has one."""
    cells = [cell for table in tables for line in table.lines for cell in line.cells.values()]
    number = counts([cell.planned for cell in cells])
    interval = " ± half of its 95\u00a0% interval" * any(cell.half is not None for cell in cells)
    return f"Mean{interval} over {number} seed{'s' * (number != '1')}" if number != "1" else "A number is of one seed"


def costs(line: Line) -> tuple[str, str]:
    """Return what an arm cost, and how fast it ran, as far as known; in minutes where no GPU was used.

    Such as "0.13 GPU-h, 0.08 kWh" and "5,447 samples/s, 8.0 GiB".
    """
    unused = "seconds" if line.cost.get("gpu_hours") else "gpu_hours"
    known = {name: value for name, value in line.cost.items() if name != unused}
    texts = {
        name: f"{f'{known[name] * factor:{form}}'.rstrip('.')} {unit}"
        for name, (factor, form, unit) in COST.items()
        if name in known
    }
    spent, speed = ([text for name, text in texts.items() if (name in SPENT) is is_spent] for is_spent in (True, False))
    return ", ".join(spent), ", ".join(speed)


def inline_svg(drawing: Drawing) -> str:
    """Return the figure as SVG for a page: in the page's text color, labelled for screen readers, with unique ids.

    A phone shows it no larger than it was drawn: --drawn is that width, for the style sheet.
    """
    own = re.sub(r"\W", "_", f"{drawing.study}-{drawing.kind}-")
    text = drawing.svg.decode()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r'(id="|href="#|url\(#)', rf"\g<1>{own}", text).replace(INK, "currentColor")
    [width] = re.findall(r'<svg[^>]* width="([\d.]+pt)"', text)
    head = f'<svg role="img" style="--drawn: {width}" aria-label="{escape(drawing.caption)}"'
    return text.replace("<svg", head, 1)

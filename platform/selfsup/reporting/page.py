"""The report as one HTML page: offline, without scripts, light and dark, printable. The text is page.html."""

import base64
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from importlib.resources import files
from typing import NamedTuple

from jinja2 import Environment, StrictUndefined

from selfsup.reporting.cells import Cell
from selfsup.reporting.figures import Drawing, svg
from selfsup.reporting.plots import INK
from selfsup.reporting.results import Result
from selfsup.reporting.tables import WANTED, Ablation, Line, Table
from selfsup.reporting.wording import heading, interval, probability, shown, words
from selfsup.sweepspec.arms import Arm, Study

COST = {  # factor to the unit, format, unit
    "gpu_hours": (1.0, ",.2f", "GPU-h"),
    "seconds": (1 / 60, ",.1f", "min"),
    "images_per_second": (1.0, ",.0f", "images/s"),
    "peak_memory_mib": (1 / 1024, ",.1f", "GiB"),
}


class Group(NamedTuple):
    """A study with its tables and drawings. study: None for methods side by side."""

    study: Study | None
    tables: Sequence[Table]
    drawings: Sequence[Drawing]


class Trace(NamedTuple):
    """Where a number is from. command: what makes it again."""

    arm: str
    result: Result
    command: str


def page(ablation: Ablation, drawings: Sequence[Drawing], pictures: Mapping[str, bytes]) -> str:
    """pictures: arm name -> PNG of its reconstructions."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"heading": heading, "shown": shown, "words": words, "inline": inline}
    environment.filters |= {"against": against, "seeds": seeds, "costs": costs, "expected": expected}
    template = environment.from_string(files("selfsup.reporting").joinpath("page.html").read_text("utf-8"))
    return template.render(
        ablation=ablation,
        sweep=ablation.sweep,
        WANTED=WANTED,
        groups=list(groups(ablation, drawings)),
        traces=list(traces(ablation)),
        params=dict(params(ablation)),
        notes=list(dict.fromkeys(table.note for table in ablation.tables)),
        pictures={name: base64.b64encode(png).decode() for name, png in pictures.items()},
    )


def groups(ablation: Ablation, drawings: Sequence[Drawing]) -> Iterator[Group]:
    for study in (*ablation.sweep.studies, None):
        name = study.name if study else ""
        tables = [table for table in ablation.tables if table.study == name]
        if tables:
            yield Group(study, tables, [drawing for drawing in drawings if drawing.study == name])


def traces(ablation: Ablation) -> Iterator[Trace]:
    """Every run that MLflow holds, once."""
    left = {result.id: result for result in ablation.results}
    sweep = ablation.sweep
    named = [(f"{study.name}: {arm.name}", arm) for study in sweep.studies for arm in study.arms]
    for name, arm in [*named, *((arm.name, arm) for arm in sweep.baselines)]:
        for seed, key in sorted(arm.ids.items()):
            if result := left.pop(key, None):
                yield Trace(name, result, command(arm, sweep.spec, seed))


def command(arm: Arm, spec: str, seed: int) -> str:
    told = [*(f"{path}={shown(value)}" for path, value in arm.changed.items()), f"seeds=[{seed}]"]
    return shlex.join(["selfsup", "run", spec, *(word for each in told for word in ("-s", each))])


def params(ablation: Ablation) -> Iterator[tuple[str, Mapping[str, str]]]:
    """Study -> the settings of its default, as MLflow holds them."""
    held = {result.id: result.params for result in ablation.results if result.params}
    for study in ablation.sweep.studies:
        if known := [held[key] for key in study.arms[0].ids.values() if key in held]:
            yield study.name, dict(sorted(known[0].items()))


def against(cell: Cell) -> str:
    """`−2.10 ± 0.44, p = 0.004`: the difference to the default; "" where there is none."""
    if cell.difference is None:
        return ""
    text = interval(cell.difference, cell.difference_half, sign="+").replace("-", "−")
    text += "" if cell.p is None else f", {probability(cell.p)}"
    return text + ("" if cell.paired is None else f", paired {probability(cell.paired)}")


def seeds(cell: Cell) -> str:
    return ", ".join(f"seed {seed}: {value:.4g}" for seed, value in cell.values.items()) or "no finished seed"


def expected(table: Table) -> set[str]:
    """The metrics of which a paper's numbers are known."""
    return {metric for line in table.lines for metric, cell in line.cells.items() if cell.expected is not None}


def costs(line: Line) -> list[str]:
    """`["0.13 GPU-h", "5,447 images/s", "8.0 GiB"]`, as far as known; minutes where no GPU was used."""
    unused = "seconds" if line.cost.get("gpu_hours") else "gpu_hours"
    known = {name: value for name, value in line.cost.items() if name != unused}
    return [f"{known[name] * factor:{form}} {unit}" for name, (factor, form, unit) in COST.items() if name in known]


def inline(drawing: Drawing) -> str:
    """The figure as part of a page: in the page's own ink, named for those who cannot see it, with ids of its own."""
    own = re.sub(r"\W", "_", f"{drawing.study}-{drawing.kind}-")
    text = svg(drawing.figure).decode()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r'(id="|href="#|url\(#)', rf"\g<1>{own}", text).replace(INK, "currentColor")
    return text.replace("<svg", f'<svg role="img" aria-label="{escape(drawing.caption)}"', 1)

"""Tables for a paper: booktabs, siunitx, the default in gray; a study's factors side by side as in MAE's Table 1."""

import re
from collections.abc import Iterator, Sequence
from itertools import groupby

from selfsup.sweeps.report.cells import NOTHING, Cell
from selfsup.sweeps.report.columns import (
    Column,
    difference,
    expected,
    failures,
    is_default,
    name_columns,
)
from selfsup.sweeps.report.crossed import Crossing, crossing
from selfsup.sweeps.report.legend import paper_legend
from selfsup.sweeps.report.notes import COVERS
from selfsup.sweeps.report.table import Ablation, Table
from selfsup.sweeps.report.tabular import (
    GRAY,
    escaped,
    header_of,
    layout_of,
    rows_of,
    tabular,
)
from selfsup.sweeps.report.wording import (
    counts,
    heading,
    label,
    listed,
    named,
    short,
    shorter,
    words,
)
from selfsup.sweeps.spec.axes import short_names
from selfsup.sweeps.spec.study import SETTING, Factor, Study

NEEDS = "% \\usepackage{amssymb,booktabs,siunitx} \\usepackage[table]{xcolor}  (siunitx 3)"
SETUP = [
    "\\sisetup{uncertainty-mode=separate, table-align-uncertainty=false, retain-explicit-plus,",
    "  reset-text-series=false, text-series-to-math=true, table-text-alignment=right}",
]
TESTS = (
    "with simultaneous 95 % intervals and adjusted p, the wider and larger of Dunnett's test over all {} arms and of "
    "Welch's of the two"
)


def latex(ablation: Ablation) -> str:
    """Write, for each study, its tables side by side and a table of differences to the default; then the methods."""
    parts = [NEEDS]
    name = ablation.sweep.name
    for study in ablation.sweep.studies:
        tables = [table for table in ablation.tables if table.study == study.name]
        if tables:
            parts += [_side_by_side(name, study, tables), _differences(name, study, tables)]
    parts += [_of_methods(name, table) for table in ablation.tables if not table.study]
    return "\n\n".join(part for part in parts if part) + "\n"


def _side_by_side(sweep: str, study: Study, tables: Sequence[Table]) -> str:
    factors = {factor.path: factor for table in tables for factor in table.varied}.values()
    source = f" Paper: {study.source}." if study.source else ""
    lost = "; ".join(f"{table.title} {text}" for table in tables for text in failures(table))
    what = listed([table.title for table in tables])
    text = " ".join(filter(None, [_settings(study, list(factors)), COVERS, _n(tables), paper_legend(tables)]))
    caption = f"{study.name}: {what}. {text}{source}"
    made = [part for table in tables for part in _tabulars(table, alone=len(tables) == 1)]
    titles = [f"({chr(97 + at % 26)}) {title}" if len(made) > 1 else "" for at, (title, _, _) in enumerate(made)]
    return _environment(
        "table*" if len(made) > 1 else "table",
        caption,
        f"{sweep} {study.name}",
        [tabular(layout, rows, title) for title, (_, layout, rows) in zip(titles, made, strict=True)],
        f"Missing: {lost}." if lost else "",
    )


def _settings(study: Study, factors: Sequence[Factor]) -> str:
    """Write what the default is; for a search, also what each arm is."""
    if [factor.path for factor in factors] != [SETTING]:
        default = [f"{words(factor.name)} {label(factor.default)}" for factor in factors]
        return f"Default (gray): {listed(default)}."
    names = short_names(path for arm in study.arms for path in arm.changed)
    settings = [
        f"{arm.name}: {', '.join(f'{words(names[path])} {short(value)}' for path, value in arm.changed.items())}."
        for arm in study.arms[1:]
    ]
    return " ".join(["Default (gray): the values of the spec.", *settings])


def _differences(sweep: str, study: Study, tables: Sequence[Table]) -> str:
    """Write the table of every arm against the default; "" where nothing is known yet."""
    lines = [(table.title, line) for table in tables for line in table.lines if not line.arm.default]
    alone = tables[0].title if len(tables) == 1 else ""
    columns = [Column("", alone, [line.label for _, line in lines], key=True)]
    for metric in tables[0].metrics:
        cells = [line.cells[metric] for _, line in lines]
        columns += [column for column in _difference_columns(heading(metric), cells) if set(column.texts) != {NOTHING}]
    if len(columns) == 1:
        return ""
    body: list[str] = []
    rows = zip([title for title, _ in lines], rows_of(columns), strict=True)
    for title, group in groupby(rows, key=lambda row: row[0]):
        body += [] if alone else [f"\\multicolumn{{{len(columns)}}}{{l}}{{\\textit{{{escaped(title)}}}}} \\\\"]
        body += [row if alone else f"\\quad {row}" for _, row in group]
    tested = any(column.name == "p" for column in columns)
    test = TESTS.format(len(study.arms)) if tested else "with too few seeds for a test"
    caption = f"{study.name}: differences to the default (Δ) {test}. {_n(tables)}"
    made = tabular(layout_of(columns), [*header_of(columns), "\\midrule", *body])
    return _environment("table", caption, f"{sweep} {study.name} differences", [made])


def _of_methods(sweep: str, table: Table) -> str:
    [(title, layout, rows)] = _tabulars(table, alone=True)
    caption = " ".join(filter(None, [f"{title.capitalize()}.", COVERS, _n([table]), paper_legend([table])]))
    return _environment("table", caption, f"{sweep} {title}", [tabular(layout, rows)])


def _environment(kind: str, caption: str, name: str, tabulars: Sequence[str], below: str = "") -> str:
    lines = [
        f"\\begin{{{kind}}}[t]",
        "\\centering\\small\\setlength{\\lineskip}{1.2em}",
        *SETUP,
        f"\\caption{{{escaped(caption)}}}",
        f"\\label{{tab:{re.sub(r'[^a-z0-9]+', '-', name.lower()).strip('-')}}}",
        "\\medskip",
        "\\hspace{2.5em}\n".join(tabulars),
        f"\\par\\smallskip\\footnotesize {escaped(below)}" if below else "",
        f"\\end{{{kind}}}",
    ]
    return "\n".join(filter(None, lines))


def _tabulars(table: Table, *, alone: bool) -> Iterator[tuple[str, str, list[str]]]:
    """Yield (title, layout, rows), one per metric where two factors are crossed.

    alone: no title is printed above it.
    """
    if crossed := crossing(table):
        for metric in table.metrics:
            columns = list(_crossed_columns(crossed, metric))
            row, column = crossed.default
            rows = [*header_of(columns, named(crossed.down)), "\\midrule", *rows_of(columns, gray=(row, column + 1))]
            yield f"{table.title}, {heading(metric)}", layout_of(columns), rows
        return
    columns = name_columns(table)
    for metric in table.metrics:
        cells = [line.cells[metric] for line in table.lines]
        columns.append(Column("", heading(metric), [_marked_text(cell) for cell in cells]))
        if any(cell.expected is not None for cell in cells):
            columns.append(Column("", "paper", expected(cells)))
    gray = [f"\\rowcolor{{{GRAY}}} " if is_default(table, line) else "" for line in table.lines]
    body = [f"{start}{row}" for start, row in zip(gray, rows_of(columns), strict=True)]
    header = header_of(columns, (table.factor.symbol or "") if table.factor and not alone else None)
    yield table.title, layout_of(columns), [*header, "\\midrule", *body]


def _crossed_columns(crossed: Crossing, metric: str) -> Iterator[Column]:
    yield Column("", "", [label(value) for value in crossed.down.values], key=True)
    for value, column in zip(crossed.across.values, zip(*crossed.rows, strict=True), strict=True):
        texts = [_marked_text(line.cells[metric]) if line else "" for line in column]
        yield Column(named(crossed.across), label(value), texts)


def _difference_columns(name: str, cells: Sequence[Cell]) -> Iterator[Column]:
    yield Column(name, "Δ", [difference(cell) for cell in cells])
    yield Column(name, "p", [NOTHING if cell.p is None else shorter(cell.p) for cell in cells])


def _marked_text(cell: Cell) -> str:
    return f"**{cell.text}{'‡' * bool(cell.behind)}**" if cell.best else cell.text + "†" * cell.tied


def _n(tables: Sequence[Table]) -> str:
    """Write `n = 3.`, and which arms have fewer."""
    lines = {line.arm.name: line for table in tables for line in table.lines}.values()
    names = [line.label for line in lines]
    if len(tables) > 1:
        titles = {line.arm.name: table.title for table in tables for line in table.lines}
        names = ["default" if line.arm.default else f"{titles[line.arm.name]} {line.label}" for line in lines]
    cells = [(name, list(line.cells.values())) for name, line in zip(names, lines, strict=True)]
    planned = counts([cell.planned for _, row in cells for cell in row])
    fewer = [f"{name}: {counts([cell.n for cell in row])}" for name, row in cells if any(c.n < c.planned for c in row)]
    return f"n = {planned} ({'; '.join(fewer)})." if fewer else f"n = {planned}."

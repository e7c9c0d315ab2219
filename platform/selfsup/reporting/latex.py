"""Tables for a paper: booktabs, siunitx, the default in grey, in the layout of MAE's Table 1."""

import re
from collections.abc import Iterator, Sequence

from selfsup.reporting.cells import Cell
from selfsup.reporting.columns import Column, columns_of, failures
from selfsup.reporting.tables import Ablation, Table
from selfsup.reporting.verdict import COVERS
from selfsup.reporting.wording import counts, listed, shown, words
from selfsup.sweepspec.arms import Factor, Study

NEEDS = "% \\usepackage{booktabs,siunitx} \\usepackage[table]{xcolor}  (siunitx 3)"
SETUP = [
    "\\sisetup{uncertainty-mode=separate, table-align-uncertainty=false, retain-explicit-plus,",
    "  reset-text-series=false, text-series-to-math=true, table-text-alignment=right}",
]
NUMBER = re.compile(r"[+-]?\d+(\.\d+)?( ± \d+(\.\d+)?)?")
SPECIAL = {
    "\\": "\\textbackslash{}",
    **{char: f"\\{char}" for char in "&%$#_{}"},
    "~": "\\textasciitilde{}",
    "^": "\\textasciicircum{}",
    "<": "$<$",
    ">": "$>$",
    "±": "$\\pm$",
    "×": "$\\times$",
    "Δ": "$\\Delta$",
    "–": "--",
    "†": "$^\\dagger$",
}


def latex(ablation: Ablation) -> str:
    """A table environment each."""
    studies = {study.name: study for study in ablation.sweep.studies}
    parts = [_environment(ablation.sweep.name, table, studies.get(table.study)) for table in ablation.tables]
    return "\n\n".join([NEEDS, *parts]) + "\n"


def escaped(text: str) -> str:
    return "".join(SPECIAL.get(char, char) for char in text)


def _environment(sweep: str, table: Table, study: Study | None) -> str:
    columns = columns_of(table, default="{}", mark=_marked)
    lost = "; ".join(failures(table))
    lines = [
        "\\begin{table}[t]",
        "\\centering",
        *SETUP,
        f"\\caption{{{escaped(_caption(table, study))}}}",
        f"\\label{{tab:{_slug(sweep, table.study, table.title)}}}",
        "\\par\\medskip",
        f"\\begin{{tabular}}{{l{''.join(_format(column) for column in columns[1:])}}}",
        "\\toprule",
        *_head(columns),
        "\\midrule",
        *_body(table, columns),
        "\\bottomrule",
        "\\end{tabular}",
        f"\\par\\smallskip\\footnotesize Without result: {escaped(lost)}." if lost else "",
        "\\end{table}",
    ]
    return "\n".join(filter(None, lines))


def _body(table: Table, columns: Sequence[Column]) -> Iterator[str]:
    rows = zip(*(column.texts for column in columns), strict=True)
    for line, (label, *cells) in zip(table.lines, rows, strict=True):
        grey = "\\rowcolor{gray!20} " if table.study and line.arm.default else ""
        yield f"{grey}{escaped(label)} & {' & '.join(map(_cell, cells))} \\\\"


def _head(columns: Sequence[Column]) -> list[str]:
    """Metrics over their columns, where one has several; below, what each column holds."""
    label, *rest = columns
    groups = [column.group for column in rest]
    spans = [(group, groups.count(group)) for group in dict.fromkeys(groups)]
    names = [f"{{{escaped(column.name)}}}" for column in rest]
    if all(size == 1 for _, size in spans):
        return [" & ".join([escaped(label.head), *(f"{{{escaped(column.head)}}}" for column in rest)]) + " \\\\"]
    over, rules, at = [""], "", 2
    for group, size in spans:
        over.append(f"\\multicolumn{{{size}}}{{c}}{{{escaped(group)}}}")
        rules += f"\\cmidrule(lr){{{at}-{at + size - 1}}}" if group else ""
        at += size
    return [" & ".join(over) + " \\\\", rules, " & ".join([escaped(label.head), *names]) + " \\\\"]


def _format(column: Column) -> str:
    """An S column as wide as its widest number; of other texts a column to the right."""
    numbers = [found.group() for text in column.texts if (found := NUMBER.search(text)) and column.name != "n"]
    if not numbers or column.name in ("p", "paired p"):
        return "r"
    means, halves = zip(
        *((mean, half) for mean, _, half in (number.partition(" ± ") for number in numbers)), strict=True
    )
    sign = "+" if any(mean[0] in "+-" for mean in means) else ""
    whole = max(len(mean.lstrip("+-").partition(".")[0]) for mean in means)
    part = max(len(mean.partition(".")[2]) for mean in means)
    digits = max(len(half.replace(".", "").lstrip("0")) for half in halves)
    return f"S[table-format={sign}{whole}.{part}{f'({digits})' if digits else ''}]"


def _cell(text: str) -> str:
    """Numbers as siunitx reads them, bold where Markdown would be; anything else in braces."""
    bold = text.startswith("**")
    found = NUMBER.match(text.strip("* "))
    if found is None:
        return f"{{{escaped(text)}}}"
    after = text.strip("* ")[found.end() :].strip()
    number = found.group().replace("±", "+-")
    return ("\\bfseries " if bold else "") + number + (f" {{{escaped(after)}}}" if after else "")


def _marked(cell: Cell) -> str:
    return f"**{cell.text}**" if cell.best else cell.text + " †" * cell.tied


def _caption(table: Table, study: Study | None) -> str:
    n = counts([cell.n for line in table.lines for cell in line.cells.values()])
    marks = "Bold: the highest mean; †: not shown to be below the best (Hsu)."
    if study is None:
        return f"{words(table.title).capitalize()}. {COVERS} n = {n}. {marks}"
    settings = listed([f"{words(factor.name)} {shown(factor.default)}" for factor in _factors(study)])
    claims = "Δ: difference to the default with simultaneous 95 % intervals and adjusted p (Dunnett)."
    source = f" Paper: {study.source}." if study.source else ""
    return f"{study.method}: {table.title}. Default (grey): {settings}. {COVERS} n = {n}. {claims} {marks}{source}"


def _factors(study: Study) -> list[Factor]:
    return list({factor.path: factor for factor in (*study.factors, *study.grid)}.values())


def _slug(*parts: str) -> str:
    return "-".join(re.sub(r"[^a-z0-9]+", "-", part.lower()).strip("-") for part in parts if part)

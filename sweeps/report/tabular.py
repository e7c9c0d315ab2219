"""Columns of text as a LaTeX tabular: booktabs, siunitx, and gray."""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from itertools import groupby

from selfsup.sweeps.report.columns import Column

NUMBER = re.compile(r"[+-]?\d+(\.\d+)?( ± \d+(\.\d+)?)?")
GRAY = "gray!20"
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
    "‡": "$^\\ddagger$",
    "✓": "$\\checkmark$",
    "✗": "$\\times$",
}


def escaped(text: str) -> str:
    paired = re.sub(r'"([^"]*)"', r"``\1''", text)
    return "".join(SPECIAL.get(char) or _greek(char) for char in paired)


def _greek(char: str) -> str:
    name = unicodedata.name(char, "")
    return f"$\\{name.rpartition(' ')[2].lower()}$" if name.startswith("GREEK SMALL LETTER") else char


def tabular(layout: str, rows: Sequence[str], title: str = "") -> str:
    """Write a tabular, with the title as its first row so that tabulars side by side align."""
    title_row = [f"\\multicolumn{{{_num_columns(layout)}}}{{l}}{{{escaped(title)}}} \\\\[2pt]"] if title else []
    body = [*title_row, "\\toprule", *rows, "\\bottomrule", "\\end{tabular}"]
    return "\n".join([f"\\begin{{tabular}}[t]{{{layout}}}", *body])


def _num_columns(layout: str) -> int:
    return len(re.findall("[lrcS]", re.sub(r"\[[^]]*\]", "", layout)))


def header_of(columns: Sequence[Column], corner: str | None = None) -> list[str]:
    """Write the header: groups above their columns, if there are any, then the columns' names."""
    first, *rest = columns
    names = [escaped(first.name if corner is None else corner), *(f"{{{escaped(column.name)}}}" for column in rest)]
    below = " & ".join(names) + " \\\\"
    over, rules, at = [""], "", 2
    for group, several in groupby(rest, key=lambda column: column.group):
        size = len(list(several))
        over.append(f"\\multicolumn{{{size}}}{{c}}{{{escaped(group)}}}" if group else "&" * (size - 1))
        rules += f"\\cmidrule(lr){{{at}-{at + size - 1}}}" if group else ""
        at += size
    return [" & ".join(over) + " \\\\", rules, below] if rules else [below]


def rows_of(columns: Sequence[Column], gray: tuple[int, int] | None = None) -> Iterator[str]:
    """Yield the rows. gray: row and column of a cell to shade."""
    for y, row in enumerate(zip(*(column.texts for column in columns), strict=True)):
        cells = [escaped(text) if column.key else _cell(text) for text, column in zip(row, columns, strict=True)]
        if gray and gray[0] == y:
            cells[gray[1]] = f"\\cellcolor{{{GRAY}}}{cells[gray[1]]}"
        yield f"{' & '.join(cells)} \\\\"


def layout_of(columns: Sequence[Column]) -> str:
    return "".join("l" if column.key else _column_format(column) for column in columns)


def _column_format(column: Column) -> str:
    """Return an S column as wide as its widest number and mark; `r` for a column of other texts."""
    numbers = [match.group() for text in column.texts if (match := NUMBER.search(text))]
    if not numbers or column.name == "p":
        return "r"
    means, halves = zip(
        *((mean, half) for mean, _, half in (number.partition(" ± ") for number in numbers)), strict=True
    )
    sign = "+" if any(mean[0] in "+-" for mean in means) else ""
    digits_before = max(len(mean.lstrip("+-").partition(".")[0]) for mean in means)
    decimals = max(len(mean.partition(".")[2]) for mean in means)
    digits = max(len(half.replace(".", "").lstrip("0")) for half in halves)
    mark = "{$^\\dagger$}" if any("†" in text or "‡" in text for text in column.texts) else ""
    return f"S[table-format={sign}{digits_before}.{decimals}{f'({digits})' if digits else ''}{mark}]"


def _cell(text: str) -> str:
    """Write a number for siunitx, bold where Markdown would be; other text in braces."""
    bold, inside = text.startswith("**"), text.strip("* ")
    match = NUMBER.match(inside)
    if match is None:
        return f"{{{escaped(text)}}}"
    suffix = inside[match.end() :].strip()
    number = match.group().replace("±", "+-")
    return ("\\bfseries " if bold else "") + number + (f" {{{escaped(suffix)}}}" if suffix else "")

"""Columns of text as a LaTeX tabular: booktabs, siunitx, and grey."""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from itertools import groupby

from selfsup.sweeps.report.columns import Column

NUMBER = re.compile(r"[+-]?\d+(\.\d+)?( ± \d+(\.\d+)?)?")
GREY = "gray!20"
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
    """Its title is its first row, so that those beside each other stand on one line."""
    above = [f"\\multicolumn{{{_width(layout)}}}{{l}}{{{escaped(title)}}} \\\\[2pt]"] if title else []
    whole = [*above, "\\toprule", *rows, "\\bottomrule", "\\end{tabular}"]
    return "\n".join([f"\\begin{{tabular}}[t]{{{layout}}}", *whole])


def _width(layout: str) -> int:
    return len(re.findall("[lrcS]", re.sub(r"\[[^]]*\]", "", layout)))


def header_of(columns: Sequence[Column], corner: str | None = None) -> list[str]:
    """Groups over their columns, if there are any; below, what each column holds."""
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


def rows_of(columns: Sequence[Column], grey: tuple[int, int] | None = None) -> Iterator[str]:
    """grey: row and column of a cell."""
    for y, row in enumerate(zip(*(column.texts for column in columns), strict=True)):
        cells = [escaped(text) if column.key else _cell(text) for text, column in zip(row, columns, strict=True)]
        if grey and grey[0] == y:
            cells[grey[1]] = f"\\cellcolor{{{GREY}}}{cells[grey[1]]}"
        yield f"{' & '.join(cells)} \\\\"


def layout_of(columns: Sequence[Column]) -> str:
    return "".join("l" if column.key else _format(column) for column in columns)


def _format(column: Column) -> str:
    """An S column as wide as its widest number and mark; of other texts a column to the right."""
    numbers = [found.group() for text in column.texts if (found := NUMBER.search(text))]
    if not numbers or column.name == "p":
        return "r"
    means, halves = zip(
        *((mean, half) for mean, _, half in (number.partition(" ± ") for number in numbers)), strict=True
    )
    sign = "+" if any(mean[0] in "+-" for mean in means) else ""
    whole = max(len(mean.lstrip("+-").partition(".")[0]) for mean in means)
    part = max(len(mean.partition(".")[2]) for mean in means)
    digits = max(len(half.replace(".", "").lstrip("0")) for half in halves)
    mark = "{$^\\dagger$}" if any("†" in text for text in column.texts) else ""
    return f"S[table-format={sign}{whole}.{part}{f'({digits})' if digits else ''}{mark}]"


def _cell(text: str) -> str:
    """Numbers as siunitx reads them, bold where Markdown would be; anything else in braces."""
    bold, inside = text.startswith("**"), text.strip("* ")
    found = NUMBER.match(inside)
    if found is None:
        return f"{{{escaped(text)}}}"
    after = inside[found.end() :].strip()
    number = found.group().replace("±", "+-")
    return ("\\bfseries " if bold else "") + number + (f" {{{escaped(after)}}}" if after else "")

"""Labels in the spellings that people and tools give them -> text in one spelling.

A label is a number or a name. None is no label; Unreadable, what is neither: several labels, fractions, bytes.
"""

import json
import math
import re
from typing import Any

SURE = ("cls", "class", "label", "json")  # members in which a label stands, in this order
UNSURE = ("index", "txt")  # in these it may be one, or a running number or a caption: all samples together tell
KEYS = ("label", "cls", "class")  # of a JSON object, in this order
WORDS = frozenset({"none", "null", "nan"})  # no label, unless a class is called so
LONGEST = 255  # characters of a name

_NUMBER = re.compile(r"([+-]?[0-9]+)(?:\.0*)?")
_FRACTION = re.compile(r"[+-]?[0-9]*\.[0-9]*[1-9][0-9]*([eE][+-]?[0-9]+)?|[+-]?[0-9]+\.?[0-9]*[eE][+-]?[0-9]+")
_TYPED = re.compile(
    r"[\w.]+\(\[?([+-]?[0-9]+)\.?0*\]?(?:, *\w+=[^)]*)?\)|\[([+-]?[0-9]+)\]"
)  # np.int64(3), tensor([3]), [3]


class Unreadable(ValueError):  # noqa: N818 (what it is, not what went wrong)
    """What stands where a label was expected."""


def read(kind: str, data: bytes) -> str | None:
    """The label in a member of this kind. Unreadable for what is none, but says something."""
    text = decoded(data).strip()
    return _from_json(text) if kind == "json" else _spelled(text)


def number(data: bytes) -> str | None:
    """The digits of a number, '' for no label, None for any other text, which is a caption."""
    try:
        label = _spelled(decoded(data).strip()) or ""
    except Unreadable:
        return None
    return label if label.isdecimal() or not label else None


def decoded(data: bytes) -> str:
    """Text in UTF-8, or in UTF-16 as Windows writes it, without its mark; other bytes stay apart from each other."""
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return data.decode("utf-16", "replace")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def _from_json(text: str) -> str | None:
    try:
        told = json.loads(text)
    except (ValueError, RecursionError):
        return None
    values = [told[key] for key in KEYS if key in told] if isinstance(told, dict) else [told]
    labels = [value for value in values if not _missing(value)]
    return _of_value(labels[0]) if labels else None


def _missing(value: Any) -> bool:
    return value is None or value == "" or value == [] or (isinstance(value, float) and math.isnan(value))


def _of_value(value: Any) -> str | None:
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise Unreadable(json.dumps(value)[:LONGEST])
    return _spelled(str(value).strip())


def _spelled(text: str) -> str | None:
    if len(text) > 1 and text[0] == text[-1] == '"':
        text = text[1:-1].strip()
    if _FRACTION.fullmatch(text) or not text.isprintable() or len(text) > LONGEST:
        raise Unreadable(repr(text[:LONGEST]))
    if match := _NUMBER.fullmatch(text) or _TYPED.fullmatch(text):
        digits = (match[1] or match[match.lastindex or 1]).removeprefix("+")
        return None if digits[0] == "-" else digits  # -1, -100 ... say "no label" to most tools
    return text or None

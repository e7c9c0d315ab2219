"""Parsing of class labels, which tools write in many spellings, into text of one spelling.

A label is a number or a name; a sample without one has None. Several labels, fractions and bytes raise LabelError.
"""

import json
import math
import re
from typing import Any

SURE = ("cls", "class", "label", "json")  # members that hold labels, by priority
UNSURE = ("index", "txt")  # members that hold labels, running numbers or captions: decided over all samples
KEYS = ("label", "cls", "class")  # of a JSON object, by priority
NULL_WORDS = frozenset({"none", "null", "nan"})  # no label, unless a class has that name
MAX_LENGTH = 255  # characters of a name

_NUMBER = re.compile(r"([+-]?[0-9]+)(?:\.0*)?")
_FRACTION = re.compile(r"[+-]?[0-9]*\.[0-9]*[1-9][0-9]*([eE][+-]?[0-9]+)?|[+-]?[0-9]+\.?[0-9]*[eE][+-]?[0-9]+")
_TYPED = re.compile(
    r"[\w.]+\(\[?([+-]?[0-9]+)\.?0*\]?(?:, *\w+=[^)]*)?\)|\[([+-]?[0-9]+)\]"
)  # np.int64(3), tensor([3]), [3]


class LabelError(ValueError):
    """Content that is not one label. The message is that content, shortened."""


def read(kind: str, data: bytes) -> str | None:
    """Return the label in a member of this kind, None for no label. Raises LabelError for other content."""
    text = decode_text(data).strip()
    return _from_json(text) if kind == "json" else _normalize(text)


def number(data: bytes) -> str | None:
    """Return the digits of a number, "" for no label, None for any other text, such as a caption."""
    try:
        label = _normalize(decode_text(data).strip()) or ""
    except LabelError:
        return None
    return label if label.isdecimal() or not label else None


def decode_text(data: bytes) -> str:
    """Decode UTF-8 or, as Windows writes it, UTF-16, without its byte order mark; other bytes are taken for Latin-1."""
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return data.decode("utf-16", "replace")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def _from_json(text: str) -> str | None:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return None
    values = [content[key] for key in KEYS if key in content] if isinstance(content, dict) else [content]
    labels = [value for value in values if not _is_missing(value)]
    return _from_value(labels[0]) if labels else None


def _is_missing(value: Any) -> bool:
    return value is None or value == "" or value == [] or (isinstance(value, float) and math.isnan(value))


def _from_value(value: Any) -> str | None:
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise LabelError(json.dumps(value)[:MAX_LENGTH])
    return _normalize(str(value).strip())


def _normalize(text: str) -> str | None:
    """Return a label in its one spelling: without quotes, "3" for "3.0", "+3" or "tensor(3)", None for -1."""
    if len(text) > 1 and text[0] == text[-1] == '"':
        text = text[1:-1].strip()
    if _FRACTION.fullmatch(text) or not text.isprintable() or len(text) > MAX_LENGTH:
        raise LabelError(repr(text[:MAX_LENGTH]))
    if match := _NUMBER.fullmatch(text) or _TYPED.fullmatch(text):
        digits = (match[1] or match[match.lastindex or 1]).removeprefix("+")
        return None if digits[0] == "-" else digits  # most tools mean "no label" by -1, -100 ...
    return text or None

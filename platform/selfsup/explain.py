"""Translation of pydantic's validation errors into messages for authors of specs."""

import difflib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal, get_args, get_origin

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from selfsup.knob import Knobs, bounds_text, group, knob_lines, type_text
from selfsup.layers import nearest
from selfsup.source import Node, Problem, Where, spelled

LISTED = 12  # keys of a group that are named where none is similar
_TYPES = {"int_from_float", "literal_error", "too_long", "too_short"}  # beside int_type, model_type, ...


def problems(error: ValidationError, kind: type[Knobs], root: Node, foreign: Mapping[str, str]) -> Iterator[Problem]:
    """Yield a problem per pydantic error. foreign: hints for paths that are knobs of other kinds."""
    for detail in error.errors(include_url=False):
        where, value = _path_in_spec(kind, detail["loc"]), detail["input"]
        place = nearest(root, where)
        match detail["type"]:
            case "extra_forbidden":
                yield Problem(place.key, where, "unknown key", _key_hint(kind, where, foreign))
            case "missing" if isinstance(where[-1], str):
                yield Problem(place.key, where, f"required but missing: {_field(kind, where).description}")
            case "missing":  # a list too short for its fixed length, with an error per missing item
                parent = where[:-1]
                yield Problem(nearest(root, parent).node.mark, parent, _expected(_annotation(kind, parent), value))
            case _:
                yield Problem(place.node.mark, where, *_wrong_value(kind, where, detail))


def did_you_mean(word: object, options: Iterable[str]) -> str:
    close = difflib.get_close_matches(word, list(options), n=1, cutoff=0.75) if isinstance(word, str) else []
    return f"did you mean '{close[0]}'?" if close else ""


def as_yaml(value: object) -> str:
    """Return a value in the syntax of YAML."""
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case tuple() | list():
            return "[" + ", ".join(map(as_yaml, value)) + "]"
        case dict():
            return "{" + ", ".join(f"{key}: {as_yaml(inner)}" for key, inner in value.items()) + "}"
    return repr(value)


def _wrong_value(kind: type[Knobs], where: Where, detail: ErrorDetails) -> tuple[str, str]:
    """Return message and hint."""
    value, annotation = detail["input"], _annotation(kind, where)
    if detail["type"] == "value_error":
        return str(detail["ctx"]["error"]), ""
    if detail["type"].endswith("_type") or (detail["type"] in _TYPES and not _bounds(kind, where)):
        return _expected(annotation, value), _value_hint(annotation, value)
    if bounds := _bounds(kind, where):
        return f"must be {bounds}, not {as_yaml(value)}", ""
    return detail["msg"].replace("Input should be", "expected") + f", not {as_yaml(value)}", ""


def _expected(annotation: Any, value: object) -> str:
    return f"expected {type_text(annotation)}, not {as_yaml(value)}"


def _value_hint(annotation: Any, value: object) -> str:
    options = get_args(annotation) or (annotation,)
    if get_origin(annotation) is Literal:
        return did_you_mean(value, map(str, options))
    if str in options and isinstance(value, (bool, int, float)):
        return "put text that looks like another type in quotes"
    if int in options and isinstance(value, float) and value.is_integer():
        return f"write {int(value)}"
    return ""


def _key_hint(kind: type[Knobs], where: Where, foreign: Mapping[str, str]) -> str:
    """Return a similar key of the group, else the hint of a foreign path, else where a knob of that name belongs.

    Else all keys of the group, where they are few.
    """
    parent, name = group(_annotation(kind, where[:-1])), str(where[-1])
    if parent and (similar := did_you_mean(name, parent.model_fields)):
        return similar
    if owner := foreign.get(spelled(where)):
        return owner
    if paths := sorted(path for path in _paths(kind) if path.split(".")[-1] == name):
        return "it belongs at " + " or ".join(paths)
    known = [*parent.model_fields] if parent else []
    return f"there are {', '.join(known)}" if 0 < len(known) <= LISTED else ""


def _paths(kind: type[Knobs]) -> set[str]:
    """Return the paths of all knobs and groups."""
    steps = [line.path.split(".") for line in knob_lines(kind)]
    return {".".join(parts[:depth]) for parts in steps for depth in range(1, len(parts) + 1)}


def _bounds(kind: type[Knobs], where: Where) -> str:
    return bounds_text(_field(kind, where)) if isinstance(where[-1], str) else ""


def _field(kind: type[Knobs], where: Where) -> FieldInfo:
    parent = group(_annotation(kind, where[:-1]))
    assert parent is not None, f"{spelled(where[:-1])} is no group of knobs"
    return parent.model_fields[str(where[-1])]


def _path_in_spec(kind: type[Knobs], where: Where) -> Where:
    """Return pydantic's location without the option of a union that it tried there."""
    for depth in range(1, len(where)):
        if isinstance(where[depth], str) and group(_annotation(kind, where[:depth])) is None:
            return where[:depth]
    return where


def _annotation(kind: type[Knobs], where: Where) -> Any:
    """Return the type of the value at a path through groups and lists."""
    annotation: Any = kind
    for part in where:
        if isinstance(part, int):
            items = get_args(annotation)
            annotation = items[0] if items[-1] is ... else items[part]
        else:
            parent = group(annotation)
            assert parent is not None, f"pydantic's path {where} leaves the groups of {kind.__name__}"
            annotation = parent.model_fields[part].annotation
    return annotation

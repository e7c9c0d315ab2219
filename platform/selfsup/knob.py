"""Knobs: hyperparameters, each declared once, with default, meaning, symbol, bounds and range of a sweep.

    class Hyper(Knobs):
        temperature: float = knob(0.1, "softmax temperature", symbol="τ", sweep=Range(0.05, 1.0, log=True), gt=0)

Specs, ids, the command line, `describe`, the JSON schema and tables all read that line.
"""

import functools
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypedDict, Union, Unpack, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen, MultipleOf
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic.fields import FieldInfo

REQUIRED: Any = ...  # a knob without a default
TOO_MANY = 2**63  # for torch, numpy, Parquet and SQL
SEEDS = 2**32  # torch reads no more bits of a seed on a CPU: larger ones would draw what smaller ones do


@dataclass(frozen=True)
class Range:
    """Every value from `low` to `high`; with `log`, each factor of ten alike."""

    low: float
    high: float
    log: bool = False

    def __post_init__(self) -> None:
        assert self.low < self.high, f"an empty range: {self.low} to {self.high}"
        assert self.low > 0 or not self.log, f"no logarithm of {self.low}"


@dataclass(frozen=True, init=False)
class Choice:
    """One of these values."""

    values: tuple[Any, ...]

    def __init__(self, *values: Any) -> None:
        assert values, "nothing to choose from"
        object.__setattr__(self, "values", values)


Sweep = Range | Choice


@dataclass(frozen=True)
class _Note:
    """The parts of a knob's declaration that pydantic has no field for."""

    symbol: str | None
    sweep: Sweep | None
    result: bool
    was: str


class Bounds(TypedDict, total=False):
    """Bounds that pydantic checks; lengths are those of lists and texts."""

    gt: float
    ge: float
    lt: float
    le: float
    multiple_of: float
    min_length: int
    max_length: int


class Knobs(BaseModel):
    """A group of knobs: frozen, no unknown names, no coercion (no 1 for true, no "1" for 1; but 1 for 1.0).

    Lists are tuples, so that a group is hashable. Raises pydantic.ValidationError.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        validate_default=True,
        allow_inf_nan=False,
    )

    @field_validator("*")
    @classmethod
    def _countable(cls, value: Any) -> Any:
        if type(value) is int and abs(value) >= TOO_MANY:
            raise ValueError(f"must be less than 2⁶³, not {value}")
        return value


def knob(
    default: Any,
    doc: str,
    *,
    symbol: str | None = None,
    sweep: Sweep | None = None,
    result: bool = True,
    was: str = "",
    **bounds: Unpack[Bounds],
) -> Any:
    """Return a field of a Knobs class. `...` as default: a spec must give a value.

    result=False: it changes no result, so no id. was: its first name, which specs may use and ids are made of.
    """
    field: FieldInfo = Field(default, description=doc, **bounds)
    field.metadata.append(_Note(symbol, sweep, result, was))
    return field


def non_default(knobs: Knobs) -> dict[str, Any]:
    """Return the knobs that can change a result and differ from their defaults, as JSON data, for ids.

    So writing a default out, or a new knob in a later version, leaves ids alone.
    """
    defaults = {name: field.default for name, field in type(knobs).model_fields.items()}
    return _differing(knobs, defaults)


def _differing(knobs: Knobs, defaults: dict[str, Any]) -> dict[str, Any]:
    dump, differing = knobs.model_dump(mode="json"), {}
    for name, field in type(knobs).model_fields.items():
        value, default = getattr(knobs, name), defaults[name]
        if not _note(field).result or value == default:
            continue
        if not isinstance(value, Knobs):
            differing[_first_name(name, field)] = dump[name]
        elif type(value) is not type(default):  # no default to differ from: the group itself is a difference
            differing[_first_name(name, field)] = non_default(value)
        elif inner := _differing(value, dict(default)):
            differing[_first_name(name, field)] = inner
    return differing


def as_dict(knobs: Knobs) -> dict[str, Any]:
    """Return every knob with its value, default or not, as JSON data."""
    return knobs.model_dump(mode="json")


def identity(knobs: Knobs) -> dict[str, Any]:
    """Return every knob that can change a result, default or not, as JSON data, to be compared on resume."""
    dump, plain = {}, as_dict(knobs)
    for name, field in type(knobs).model_fields.items():
        if _note(field).result:
            value = getattr(knobs, name)
            dump[_first_name(name, field)] = identity(value) if isinstance(value, Knobs) else plain[name]
    return dump


def _first_name(name: str, field: FieldInfo) -> str:
    return _note(field).was or name


@functools.cache
def former_names(cls: type[Knobs]) -> Mapping[str, str]:
    """Return first name -> present name of the renamed knobs of a class."""
    names = {note.was: name for name, field in cls.model_fields.items() for note in _notes(field) if note.was}
    assert not names.keys() & cls.model_fields.keys(), f"{cls.__name__}: an old name is the name of another knob"
    return names


@dataclass(frozen=True)
class KnobLine:
    """A line of `selfsup describe`. default: REQUIRED (...) where there is none. bounds: such as "> 0, ≤ 1"."""

    path: str
    type: str
    default: Any
    symbol: str | None
    bounds: str
    sweep: Sweep | None
    result: bool
    doc: str
    was: str = ""


@functools.cache
def knob_lines(cls: type[Knobs], prefix: str = "") -> tuple[KnobLine, ...]:
    """Return a line for every knob of `cls` and its groups, in order, and one for a group that may be null."""
    lines: list[KnobLine] = []
    for name, field in cls.model_fields.items():
        inner = group(field.annotation)
        if inner is None or field.default is None:
            lines.append(_describe(prefix + name, field))
        if inner:
            lines += knob_lines(inner, f"{prefix}{name}.")
    return tuple(lines)


def group(annotation: Any) -> type[Knobs] | None:
    """Return the Knobs class in an annotation; None for a field that is no group of knobs."""
    options = get_args(annotation) or (annotation,)
    return next((option for option in options if isinstance(option, type) and issubclass(option, Knobs)), None)


def _describe(path: str, field: FieldInfo) -> KnobLine:
    note = _note(field)
    return KnobLine(
        path=path,
        type=type_text(field.annotation),
        default=REQUIRED if field.is_required() else field.default,
        symbol=note.symbol,
        bounds=bounds_text(field),
        sweep=note.sweep,
        result=note.result,
        doc=field.description or "",
        was=note.was,
    )


def undeclared(cls: type[Knobs]) -> list[str]:
    """Return the fields that are declared without knob(...)."""
    fields = cls.model_fields.items()
    return [name for name, field in fields if not any(isinstance(entry, _Note) for entry in field.metadata)]


def default_problem(cls: type[Knobs]) -> str:
    """Return which default is not valid, and why; "" where all are. Knobs without one count as valid."""
    try:
        cls()
    except ValidationError as error:
        for detail in error.errors(include_url=False):
            if detail["type"] != "missing":
                path = ".".join(map(str, detail["loc"]))
                reason = detail["msg"].removeprefix("Value error, ").replace("Input should be", "it should be")
                value = f"{path}: the default {detail['input']!r} is" if path else "its defaults are"
                return f"{value} not valid: {reason}"
    return ""


def _note(field: FieldInfo) -> _Note:
    notes = _notes(field)
    assert len(notes) == 1, f"a field of a Knobs class must be declared with knob(...): {field}"
    return notes[0]


def _notes(field: FieldInfo) -> list[_Note]:
    return [entry for entry in field.metadata if isinstance(entry, _Note)]


_WORDS = {bool: "true | false", int: "integer", float: "number", str: "text"}


def type_text(annotation: Any) -> str:
    """Return a type in the words of specs: `number | null`, `[integer, ...]`, `adamw | sgd | lars`."""
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return " | ".join(str(value) for value in args)
    if origin is Annotated:
        return type_text(args[0])
    if origin in (Union, types.UnionType):
        return " | ".join(type_text(option) for option in args)
    if origin is tuple:
        return "[" + ", ".join("..." if item is ... else type_text(item) for item in args) + "]"
    if origin is dict:
        return f"{{name: {type_text(args[1])}, ...}}"
    if annotation is types.NoneType:
        return "null"
    if issubclass(annotation, Knobs):
        return "{" + ", ".join(annotation.model_fields) + "}"
    return _WORDS.get(annotation) or str(annotation.__name__)


def bounds_text(field: FieldInfo) -> str:
    return ", ".join(_bound_texts(field))


def _bound_texts(field: FieldInfo) -> Iterator[str]:
    for bound in field.metadata:
        match bound:
            case Gt(gt=value):
                yield f"> {value}"
            case Ge(ge=value):
                yield f"≥ {value}"
            case Lt(lt=value):
                yield f"< {value}"
            case Le(le=value):
                yield f"≤ {value}"
            case MultipleOf(multiple_of=value):
                yield f"a multiple of {value}"
            case MinLen(min_length=value):
                yield f"at least {value} long"
            case MaxLen(max_length=value):
                yield f"at most {value} long"

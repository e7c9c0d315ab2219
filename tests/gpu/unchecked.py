"""Stand-ins for what a bare machine lacks: pydantic without its checks, and the one function of SciPy that draws.

Groups of knobs have their defaults, and take what they are given: the check's own settings are right, as its tests hold
with pydantic.
"""

import sys
from collections.abc import Callable, Iterator, Mapping
from inspect import get_annotations
from types import ModuleType
from typing import Any, ClassVar, Self, get_origin

import torch
from torch import Tensor

LEAST = 1e-12  # of a draw, as of DirichletMask
present: set[str] = set()  # modules that are stand-ins
BOUNDS = "Ge", "Gt", "Le", "Lt", "MaxLen", "MinLen", "MultipleOf"


class FieldInfo:
    """A field of a group."""

    def __init__(self, default: Any = ..., *, description: str | None = None, **_: object) -> None:
        self.default, self.description, self.annotation = default, description, None
        self.metadata: list[Any] = []

    def is_required(self) -> bool:
        return self.default is ...


class BaseModel:
    """A group of values, by the names that its class and those above it annotate."""

    model_fields: ClassVar[dict[str, Any]] = {}

    def __init_subclass__(cls, **_: object) -> None:
        own = get_annotations(cls)
        fields = {name: field for base in reversed(cls.__mro__[1:]) for name, field in _fields(base).items()}
        for name, annotation in own.items():
            if name.startswith(("_", "model_")) or get_origin(annotation) is ClassVar:
                continue
            given = cls.__dict__.get(name, ...)
            fields[name] = given if isinstance(given, FieldInfo) else FieldInfo(given)
            fields[name].annotation = annotation
            if name in cls.__dict__:
                delattr(cls, name)
        cls.model_fields = fields

    def __init__(self, **values: Any) -> None:
        if unknown := values.keys() - self.model_fields.keys():
            raise TypeError(f"{type(self).__name__}: unknown: {', '.join(sorted(unknown))}")
        self.__dict__ |= {name: field.default for name, field in self.model_fields.items()} | values
        self.__dict__["model_fields_set"] = {*values}
        if missing := [name for name in self.model_fields if self.__dict__[name] is ...]:
            raise TypeError(f"{type(self).__name__}: required: {', '.join(missing)}")

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        return ((name, getattr(self, name)) for name in self.model_fields)

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and [*self] == [*other]  # type: ignore[call-overload]

    def __hash__(self) -> int:
        return hash((type(self), *self))

    def model_copy(self, *, update: Mapping[str, Any] | None = None) -> Self:
        return type(self)(**dict(self) | dict(update or {}))

    def model_dump(self, **_: object) -> dict[str, Any]:
        return {name: value.model_dump() if isinstance(value, BaseModel) else value for name, value in self}

    @classmethod
    def model_validate(cls, values: Mapping[str, Any]) -> Self:
        return cls(**values)


def _fields(kind: type) -> dict[str, Any]:
    return kind.__dict__.get("model_fields", {}) if issubclass(kind, BaseModel) else {}


def create_model(name: str, *, __base__: type, __module__: str = __name__, **fields: Any) -> type:
    """Return a class of groups. fields: (annotation, default) by name."""
    annotations = {key: annotation for key, (annotation, _) in fields.items()}
    defaults = {key: default for key, (_, default) in fields.items()}
    return type(name, (__base__,), {"__module__": __module__, "__annotations__": annotations} | defaults)


def unchanged(*_: object, **__: object) -> Callable[[Any], Any]:
    """Return a decorator that leaves a function as it is."""
    return lambda function: function


class Ignored:
    """Anything that is only named, or made of any arguments."""

    def __init__(self, *_: object, **__: object) -> None:
        pass


def exponential_shares(rule: Any, noise: Tensor) -> Tensor:
    """(B, T) in [0, 1) -> (B, T): DirichletMask's shares where Gamma(alpha) is the exponential distribution"""
    assert rule.alpha == 1
    gamma = -torch.log1p(-noise.double().clamp(min=LEAST))
    return gamma / gamma.sum(1, keepdim=True)


def install() -> None:
    """Let imports of pydantic find what is here."""
    ignored = dict.fromkeys(("BeforeValidator", "TypeAdapter", "ValidationInfo", "WithJsonSchema"), Ignored)
    decorators = dict.fromkeys(("field_serializer", "field_validator", "model_validator"), unchanged)
    error = type("ValidationError", (ValueError,), {})
    modules: dict[str, dict[str, Any]] = {
        "pydantic": {
            **ignored,
            **decorators,
            "BaseModel": BaseModel,
            "ConfigDict": dict,
            "Field": FieldInfo,
            "PrivateAttr": lambda default: default,
            "ValidationError": error,
            "create_model": create_model,
        },
        "pydantic.fields": {"FieldInfo": FieldInfo},
        "pydantic.json_schema": {"models_json_schema": Ignored},
        "pydantic_core": {"ErrorDetails": dict, "to_json": Ignored},
        "annotated_types": dict.fromkeys(BOUNDS, Ignored),
    }
    for name, content in modules.items():
        sys.modules[name] = ModuleType(name)
        vars(sys.modules[name]).update(content)
        present.add(name)

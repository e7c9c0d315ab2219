"""The JSON schema of sweep files, and so of spec files too, for editors."""

from typing import Any

from selfsup import spec, spec_schema
from selfsup.published import PROTOCOLS
from selfsup.sweeps.spec.search import Search
from selfsup.sweeps.spec.sweepfile import SweepHeader

TEXTS = {  # key -> what is allowed, and its meaning; of the keys that a study may have, too
    "extends": ("text", spec_schema.EXTENDS),
    "ablate": ("lists by path", "values to try one at a time around the spec's own: `{hyper.mask_ratio: [0.5, 0.75]}`"),
    "grid": (
        "lists by path",
        "values that are crossed with each other: `{optim.lr: [1e-3, 2e-3], train.batch: [64, 128]}`",
    ),
    "expected": (
        "numbers by arm",
        'the paper\'s: `{source: "MAE, Table 1", mask_ratio=0.5: {eval/linear/top1: 71.9}}`',
    ),
    "studies": ("list of specs", "each with a name and axes of its own, over what the file says for all of them"),
}
SEARCHED = {
    "type": "object",
    "properties": {
        "search": {
            "anyOf": [
                {"const": "auto"},
                {"type": "array", "minItems": 2, "uniqueItems": True},
                {
                    "type": "object",
                    "properties": {"low": {"type": "number"}, "high": {"type": "number"}, "log": {"type": "boolean"}},
                    "required": ["low", "high"],
                    "additionalProperties": False,
                },
            ]
        }
    },
    "required": ["search"],
    "additionalProperties": False,
}


def schema() -> dict[str, Any]:
    """Return the JSON schema."""
    document = spec_schema.schema()
    defs = document["$defs"]
    kinds = [spec.spec_type(method).__name__ for method in spec.methods()]
    for name, definition in defs.items():
        if name not in kinds:
            definition["properties"] = {key: _or_searched(value) for key, value in definition["properties"].items()}
    sweep_properties = _sweep_properties(study={"type": "object", "allOf": document["allOf"]})
    for name in kinds:
        defs[name]["properties"] |= sweep_properties
    document["properties"] |= sweep_properties
    document["anyOf"].append({"required": ["studies"]})
    defs["searched"] = SEARCHED
    return document | {"title": "selfsup sweep"}


def _sweep_properties(study: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the keys that a sweep file has beside those of its spec."""
    axes = {
        "type": ["object", "null"],
        "additionalProperties": {"anyOf": [{"type": "array", "minItems": 1}, {"type": "object"}]},
    }
    expected = {
        "type": ["object", "null"],
        "properties": {"source": {"type": "string"}, "protocol": {"enum": list(PROTOCOLS)}},
        "additionalProperties": {"type": "object", "additionalProperties": {"type": "number"}},
    }
    properties: dict[str, dict[str, Any]] = {
        "question": {"type": "string"},
        "primary": {"type": ["string", "null"]},
        "ablate": axes,
        "grid": axes,
        "expected": expected,
        "search": Search.model_json_schema(),
        "studies": {"type": ["array", "null"], "minItems": 1, "items": study},
    }
    meanings = {name: field.description for name, field in SweepHeader.model_fields.items()}
    meanings |= {name: text for name, (_, text) in TEXTS.items()}
    return {name: value | {"description": meanings[name]} for name, value in properties.items()}


def _or_searched(value: dict[str, Any]) -> dict[str, Any]:
    """Let a knob take a search in place of a value; a group of knobs has no value."""
    if "$ref" in value or any("$ref" in option for option in value.get("anyOf", ())):
        return value
    return {"anyOf": [value, {"$ref": "#/$defs/searched"}], "description": value.get("description", "")}

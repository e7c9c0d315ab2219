"""The JSON schema of sweep files, and so of spec files too, for editors."""

from typing import Any

from selfsup import spec, spec_schema
from selfsup.sections import PROTOCOLS
from selfsup.sweeps.spec.search import Search

AXES = {
    "type": ["object", "null"],
    "description": "lists of values by path, such as {hyper.mask_ratio: [0.5, 0.75]}",
    "additionalProperties": {"anyOf": [{"type": "array", "minItems": 1}, {"type": "object"}]},
}
NUMBERS = {"type": "object", "additionalProperties": {"type": "number"}}
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
    sweep_properties = {
        "question": {"type": "string", "description": "what the sweep is to find out, in a sentence"},
        "primary": {"type": ["string", "null"], "description": "the one metric that claims are made of"},
        "ablate": AXES,
        "grid": AXES,
        "expected": {
            "type": ["object", "null"],
            "properties": {"source": {"type": "string"}, "protocol": {"enum": list(PROTOCOLS)}},
            "additionalProperties": NUMBERS,
        },
        "search": Search.model_json_schema(),
        "studies": {"type": ["array", "null"], "minItems": 1, "items": {"type": "object", "allOf": document["allOf"]}},
    }
    for name in kinds:
        defs[name]["properties"] |= sweep_properties
    document["properties"] |= sweep_properties
    document["anyOf"].append({"required": ["studies"]})
    defs["searched"] = SEARCHED
    return document | {"title": "selfsup sweep"}


def _or_searched(value: dict[str, Any]) -> dict[str, Any]:
    """Let a knob take a search in place of a value; a group of knobs has no value."""
    if "$ref" in value or any("$ref" in option for option in value.get("anyOf", ())):
        return value
    return {"anyOf": [value, {"$ref": "#/$defs/searched"}], "description": value.get("description", "")}

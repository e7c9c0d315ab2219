"""The JSON schema of spec files, for editors."""

from collections.abc import Mapping
from typing import Any

from pydantic.json_schema import models_json_schema

from selfsup import evaluations, outside
from selfsup.spec import Spec, methods, spec_type

_REF = "#/$defs/{model}"
EXTENDS = "another spec, relative to this file, or a shipped one, for all that is left out here"
_OUTSIDE = {"type": "string", "pattern": outside.PATTERN, "description": "a file, or module:Class, of your own"}


def schema() -> dict[str, Any]:
    """Return the JSON schema of spec files, for editors. A file that extends another may leave out any key."""
    kinds = {name: spec_type(name) for name in methods()}
    refs, shared = models_json_schema([(kind, "validation") for kind in kinds.values()], ref_template=_REF)
    defs = shared["$defs"]
    extends = {"type": "string", "description": EXTENDS}
    for definition in defs.values():
        definition.pop("required", None)
    defs["Evals"]["additionalProperties"] = evaluations.schema(_REF)
    for kind in kinds.values():
        defs[kind.__name__]["properties"]["extends"] = extends
    required = [name for name, field in Spec.model_fields.items() if field.is_required()]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "selfsup spec",
        "type": "object",
        "properties": {"method": {"anyOf": [{"enum": methods()}, _OUTSIDE]}, "extends": extends},
        "anyOf": [{"required": ["extends"]}, {"required": required}],
        "allOf": [_when(name, refs[kind, "validation"]) for name, kind in kinds.items()],
        "$defs": defs,
    }


def _when(method: str, ref: Mapping[str, Any]) -> dict[str, Any]:
    return {"if": {"properties": {"method": {"const": method}}, "required": ["method"]}, "then": ref}

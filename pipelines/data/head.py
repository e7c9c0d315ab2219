"""manifest.json: what it says of a data set, held to what can be true of one."""

import json
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from selfsup.errors import DataError

NAME = "manifest.json"
VERSION = "2.1"  # since when the digest covers labels, places, classes, mean and deviation

Digest = Annotated[str, Field(pattern="^[0-9a-f]{32}$")]
Count = Annotated[int, Field(gt=0, lt=2**63)]
Mean = Annotated[float, Field(ge=0, le=1)]  # of pixels in [0, 1]
Bits = Annotated[int, Field(ge=8, lt=16)]
Deviation = Annotated[float, Field(gt=0, le=1)]


class Head(BaseModel):
    """root: where the shards lie; None: beside it. digest: of all that counts. rows: of places and labels.

    bits: how many of their 16 deep images use; None: all.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    version: str
    root: Annotated[str, Field(pattern=r"^[^\x00-\x1f]+$")] | None
    digest: Digest
    rows: Digest
    num_samples: Count
    num_labelled: int = Field(ge=0)
    num_shards: Count
    fields: tuple[str, ...]
    classes: tuple[str, ...]
    mean: tuple[Mean, Mean, Mean]
    std: tuple[Deviation, Deviation, Deviation]
    bits: Bits | None = None


def parse(data: bytes, *, url: str, remedy: str) -> Head:
    """DataError for what is no head, one of another version, or one that cannot be true."""
    try:
        version = json.loads(data)["version"]
    except (ValueError, TypeError, LookupError, RecursionError) as error:
        raise DataError(f"{url}: no manifest: {error}; {remedy}") from error
    if version != VERSION:
        raise DataError(f"{url}: version {version}, not {VERSION}: {remedy}")
    try:
        head = Head.model_validate_json(data)
    except ValidationError as error:
        raise DataError(f"{url}: {_first(error)}; {remedy}") from error
    if head.num_labelled > head.num_samples or (head.num_labelled and not head.classes):
        labelled = f"{head.num_labelled} labelled samples of {head.num_samples} in {len(head.classes)} classes"
        raise DataError(f"{url}: {labelled}; {remedy}")
    return head


def _first(error: ValidationError) -> str:
    problem: Any = error.errors(include_url=False, include_input=False)[0]
    return f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}"

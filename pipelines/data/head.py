"""The schema of manifest.json, and its validation."""

import json
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from selfsup.errors import DataError

NAME = "manifest.json"
VERSION = "2.1"  # of the format

Digest = Annotated[str, Field(pattern="^[0-9a-f]{32}$")]
Count = Annotated[int, Field(gt=0, lt=2**63)]
Mean = Annotated[float, Field(ge=0, le=1)]  # of pixels in [0, 1]
Bits = Annotated[int, Field(ge=8, lt=16)]
Deviation = Annotated[float, Field(gt=0, le=1)]


class ManifestHead(BaseModel):
    """The content of manifest.json.

    root: the folder of the shards; None: that of the manifest. digest: of everything that results depend on. rows: the
    digest of the sample index. mean, std: per channel. bits: number in use of images of 16 bits; None: all.
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


def parse(data: bytes, *, url: str, remedy: str) -> ManifestHead:
    """Return the content of manifest.json. Raises DataError for other content, another version or impossible counts."""
    try:
        version = json.loads(data)["version"]
    except (ValueError, TypeError, LookupError, RecursionError) as error:
        raise DataError(f"{url}: not a manifest: {error}; {remedy}") from error
    if version != VERSION:
        raise DataError(f"{url}: a manifest of version {version}; expected version {VERSION}: {remedy}")
    try:
        head = ManifestHead.model_validate_json(data)
    except ValidationError as error:
        raise DataError(f"{url}: {_first_problem(error)}; {remedy}") from error
    if head.num_labelled > head.num_samples or (head.num_labelled and not head.classes):
        counts = f"{head.num_labelled} labelled samples of {head.num_samples} in {len(head.classes)} classes"
        raise DataError(f"{url}: {counts} cannot be; {remedy}")
    return head


def _first_problem(error: ValidationError) -> str:
    problem: Any = error.errors(include_url=False, include_input=False)[0]
    return f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}"

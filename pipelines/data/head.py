"""The schema of manifest.json, and its validation."""

import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_serializer, field_validator

from selfsup import modality
from selfsup.errors import DataError
from selfsup.modality import Reading

NAME = "manifest.json"
VERSION = "3"  # of the format
OLDER = "2.1"  # is read, too: of images and their classes alone

Digest = Annotated[str, Field(pattern="^[0-9a-f]{32}$")]
Count = Annotated[int, Field(gt=0, lt=2**63)]


class ManifestHead(BaseModel):
    """The content of manifest.json.

    root: the folder of the shards; None: that of the manifest. digest: of everything that results depend on. rows: the
    digest of the sample index. members: the kinds of members of the shards. fields: of every sample, or of most,
    modality -> how it is read and normalized, in the order of the columns of the sample index. annotations: of every
    sample; the next columns. beside: other modalities -> the digest of its own index. readings: of those, as of fields.
    lacking: of all these what some samples lack -> how many do.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    version: str
    root: Annotated[str, Field(pattern=r"^[^\x00-\x1f]+$")] | None
    digest: Digest
    rows: Digest
    num_samples: Count
    num_labelled: int = Field(ge=0)
    num_shards: Count
    members: tuple[str, ...]
    classes: tuple[str, ...]
    fields: Annotated[dict[str, Any], Field(min_length=1)]
    annotations: tuple[Literal["seg", "inst", "depth", "disparity", "right"], ...] = ()
    beside: dict[str, Digest] = {}
    readings: dict[str, Any] = {}
    lacking: dict[str, Count] = {}

    @field_validator("fields", "readings")
    @classmethod
    def _of_modalities(cls, fields: dict[str, Any]) -> dict[str, Reading]:
        if unknown := fields.keys() - modality.names():
            raise ValueError(f"{min(unknown)} is no modality of this version")
        return {name: _stats(name, value) for name, value in fields.items()}

    @field_serializer("fields", "readings")
    def _as_json(self, fields: dict[str, Reading]) -> dict[str, Any]:
        return {name: stats.model_dump(mode="json") for name, stats in fields.items()}


def _stats(name: str, value: Any) -> Reading:
    """Return the Stats of a modality. Raises ValueError with the place of the first mistake."""
    try:
        stats: Reading = modality.load(name).Stats.model_validate_json(json.dumps(value))
    except ValidationError as error:
        raise ValueError(f"{name}.{_first_problem(error)}") from error
    return stats


def parse(data: bytes, *, url: str, remedy: str) -> ManifestHead:
    """Return the content of manifest.json. Raises DataError for other content, another version or impossible counts."""
    try:
        content = json.loads(data)
        version = content["version"]
    except (ValueError, TypeError, LookupError, RecursionError) as error:
        raise DataError(f"{url}: not a manifest: {error}; {remedy}") from error
    if version not in (VERSION, OLDER):
        raise DataError(f"{url}: a manifest of version {version}; expected version {VERSION}: {remedy}")
    try:
        head = ManifestHead.model_validate_json(json.dumps(_from_older(content) if version == OLDER else content))
    except ValidationError as error:
        raise DataError(f"{url}: {_first_problem(error)}; {remedy}") from error
    if head.num_labelled > head.num_samples or (head.num_labelled and not head.classes):
        counts = f"{head.num_labelled} labelled samples of {head.num_samples} in {len(head.classes)} classes"
        raise DataError(f"{url}: {counts} cannot be; {remedy}")
    return head


def _from_older(content: dict[str, Any]) -> dict[str, Any]:
    """Return the content of a manifest of version 2.1 as one of this version."""
    stats = {name: content[name] for name in ("mean", "std", "bits") if name in content}
    rest = {name: value for name, value in content.items() if name not in stats}
    return rest | {"version": VERSION, "members": content.get("fields"), "fields": {"image": stats}}


def _first_problem(error: ValidationError) -> str:
    problem: Any = error.errors(include_url=False, include_input=False)[0]
    return f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}"

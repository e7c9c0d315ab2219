"""A run as the report of a sweep sees it. Plain data."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from selfsup.hits import HitRecord

Status = Literal["done", "running", "failed", "stopped", "pending"]
Curve = Sequence[tuple[int, float]]  # (step, value)


@dataclass(frozen=True)
class Result:
    """One run. id: ours. run: MLflow's id of it, None where it never started. curves: name -> (step, value) pairs."""

    id: str
    seed: int
    run: str | None
    status: Status
    reason: str
    metrics: Mapping[str, float]
    params: Mapping[str, str]
    tags: Mapping[str, str]
    curves: Mapping[str, Curve]
    seen: Mapping[str, HitRecord] = field(default_factory=dict)  # by metric, the images that it is of

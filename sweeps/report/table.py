"""The content of a report, whatever its format. Plain data."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from selfsup.sweeps.report.cells import Cell
from selfsup.sweeps.report.stats import SeedsNeeded
from selfsup.sweeps.result import Result
from selfsup.sweeps.spec.study import Arm, Factor
from selfsup.sweeps.spec.sweep import Sweep

COST = ("seconds", "gpu_hours", "samples_per_second", "peak_memory_mib", "energy_wh")


@dataclass(frozen=True)
class Line:
    """One arm as a row of a table. cost: means over finished seeds, as far as known. failures: "seeds 0 and 1: nan"."""

    arm: Arm
    label: str
    cells: Mapping[str, Cell]
    cost: Mapping[str, float]
    failures: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """A table.

    varied: the factors its lines differ in, several for a grid, none for the table of methods (study "").
    """

    study: str
    varied: tuple[Factor, ...]
    title: str
    metrics: tuple[str, ...]
    lines: tuple[Line, ...]
    verdict: tuple[str, ...]
    note: str

    @property
    def factor(self) -> Factor | None:
        """Return the factor that is varied; None for a grid and for methods."""
        return self.varied[0] if len(self.varied) == 1 else None


@dataclass(frozen=True)
class Ablation:
    """A sweep with all its numbers.

    integrity: see integrity.py. needed: metric -> seeds to tell a difference of WANTED.

    place: the page of the sweep's experiment in MLflow's UI, or "". served: whether it is a server's, and there for
    all. looks: earlier plans with fewer seeds.
    """

    sweep: Sweep
    tables: tuple[Table, ...]
    results: tuple[Result, ...]
    integrity: Mapping[str, Any]
    needed: Mapping[str, SeedsNeeded]
    place: str = ""
    looks: int = 0
    served: bool = False

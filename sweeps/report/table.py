"""Everything that a report shows of a sweep, whatever its format. Plain data."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from selfsup.sweeps.report.cells import Cell
from selfsup.sweeps.report.stats import Needed
from selfsup.sweeps.result import Result
from selfsup.sweeps.spec.study import Arm, Factor
from selfsup.sweeps.spec.sweep import Sweep

COST = ("seconds", "gpu_hours", "images_per_second", "peak_memory_mib", "energy_wh")


@dataclass(frozen=True)
class Line:
    """One arm. cost: means over finished seeds of what is known of COST. failures: such as "seeds 0 and 1: nan"."""

    arm: Arm
    label: str
    cells: Mapping[str, Cell]
    cost: Mapping[str, float]
    failures: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """varied: what its lines differ in, of a grid several; nothing for methods side by side, whose study is ""."""

    study: str
    varied: tuple[Factor, ...]
    title: str
    metrics: tuple[str, ...]
    lines: tuple[Line, ...]
    verdict: tuple[str, ...]
    note: str

    @property
    def factor(self) -> Factor | None:
        """The one that is varied; None for a grid and for methods."""
        return self.varied[0] if len(self.varied) == 1 else None


@dataclass(frozen=True)
class Ablation:
    """integrity: see integrity.py. needed: metric -> seeds to tell a difference of WANTED, where seeds deviate most.

    place: of the sweep's experiment in MLflow's UI; "" where there is none. looks: at fewer seeds, before.
    """

    sweep: Sweep
    tables: tuple[Table, ...]
    results: tuple[Result, ...]
    integrity: Mapping[str, Any]
    needed: Mapping[str, Needed]
    place: str = ""
    looks: int = 0

"""A study as its report sees it: arms, and each arm's runs by seed. Plain data."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

SETTING = "setting"  # path of the factor of a study whose arms are named as a whole, as those of a search are


@dataclass(frozen=True)
class Factor:
    """A path that is varied and its values, with the default among them; numbers are in order.

    log: the values are numbers, and the knob's own range is logarithmic.
    """

    path: str
    values: tuple[Any, ...]
    default: Any
    symbol: str | None
    log: bool

    @property
    def name(self) -> str:
        return self.path.rpartition(".")[2]


@dataclass(frozen=True)
class Arm:
    """One setting. values: of every factor of its study; changed: those that differ from the default.

    ids: seed -> id of the run, such as "mae-4fa97deb3567".
    """

    name: str
    values: Mapping[str, Any]
    changed: Mapping[str, Any]
    ids: Mapping[int, str]

    @property
    def default(self) -> bool:
        return not self.changed


@dataclass(frozen=True)
class Study:
    """Arms of one method around one default, which comes first.

    factors: varied one at a time; grid: crossed with each other. expected: arm name -> metric -> the paper's number.
    floor: baselines on its own data and encoder.
    """

    name: str
    method: str
    factors: tuple[Factor, ...]
    grid: tuple[Factor, ...]
    arms: tuple[Arm, ...]
    expected: Mapping[str, Mapping[str, float]]
    source: str
    floor: tuple[Arm, ...] = ()

"""A study as its report sees it: arms, and each arm's runs by seed. Plain data; a report needs no more."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

SETTING = "setting"  # path of the factor of a study whose arms are named as a whole, as those of a search are


@dataclass(frozen=True)
class Factor:
    """What is varied: a path and its values, among them the default; numbers are in order.

    log: numeric, and the knob's own range is logarithmic.
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
    """One setting. values: of every factor of its study; changed: those that are not the default's.

    ids: seed -> id of the Run, such as "mae-4fa97deb3567".
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
    """Arms of one method round one default, which comes first.

    factors: varied one at a time; grid: crossed with each other. expected: arm name -> metric -> the paper's number.
    floor: baselines of its own data and encoder.
    """

    name: str
    method: str
    factors: tuple[Factor, ...]
    grid: tuple[Factor, ...]
    arms: tuple[Arm, ...]
    expected: Mapping[str, Mapping[str, float]]
    source: str
    floor: tuple[Arm, ...] = ()

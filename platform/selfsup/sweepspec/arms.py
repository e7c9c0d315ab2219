"""A sweep as its report sees it: studies of arms, and each arm's runs by seed. Plain data; a report needs no more."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from selfsup.sweepspec.trials import Searched

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


@dataclass(frozen=True)
class Sweep:
    """digest: of the arms, seeds and metrics that were planned. metrics: in table order, higher is better.

    search: what the arms came out of, where they were not planned; no arms before it is over. overrides: of the command
    line, such as "train.batch=64". primary: the one metric that claims are made of; "" for all.
    """

    name: str
    question: str
    spec: str
    digest: str
    seeds: tuple[int, ...]
    metrics: tuple[str, ...]
    studies: tuple[Study, ...]
    search: "Searched | None" = None
    overrides: tuple[str, ...] = ()
    primary: str = ""

    @property
    def baselines(self) -> tuple[Arm, ...]:
        """Of all studies, each once."""
        arms: dict[tuple[str, ...], Arm] = {}
        for arm in (arm for study in self.studies for arm in study.floor):
            arms.setdefault(tuple(arm.ids.values()), arm)
        return tuple(arms.values())

    @property
    def command(self) -> str:
        """What makes it, typed where it was typed."""
        told = [word for override in self.overrides for word in ("-s", override)]
        return shlex.join(["selfsup", "sweep", self.spec, *told])


def joined(sweeps: Sequence[Sweep]) -> Sweep:
    """Side by side."""
    return replace(
        sweeps[0],
        seeds=tuple(dict.fromkeys(seed for sweep in sweeps for seed in sweep.seeds)),
        metrics=tuple(dict.fromkeys(metric for sweep in sweeps for metric in sweep.metrics)),
        studies=tuple(study for sweep in sweeps for study in sweep.studies),
    )

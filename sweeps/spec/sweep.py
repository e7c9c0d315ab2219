"""A sweep as its report sees it: its studies, or the search that it is, with the ids of all runs. Plain data."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace

from selfsup.sweeps.spec.study import Arm, Study
from selfsup.sweeps.spec.trials import Searched


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
    search: Searched | None = None
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

"""A sweep as its report sees it: its studies, or its search, with the ids of all runs. Plain data."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from selfsup.evaluator import ACCURACY, Metric
from selfsup.sweeps.spec.study import Arm, Study
from selfsup.sweeps.spec.trials import SearchResult


@dataclass(frozen=True)
class Sweep:
    """A planned sweep. digest: of the arms, seeds and metrics. metrics: in table order. scales: of these, the unit and
    whether more is better; a percentage of which more is better where one is not named.

    search: the origin of arms that were not planned; there are none before it is over. overrides: of the command line,
    such as "train.batch=64". primary: the one metric that claims are made of; "" for all.
    """

    name: str
    question: str
    spec: str
    digest: str
    seeds: tuple[int, ...]
    metrics: tuple[str, ...]
    studies: tuple[Study, ...]
    search: SearchResult | None = None
    overrides: tuple[str, ...] = ()
    primary: str = ""
    scales: Mapping[str, Metric] = field(default_factory=dict)

    def scale(self, metric: str) -> Metric:
        return self.scales.get(metric, ACCURACY)

    @property
    def baselines(self) -> tuple[Arm, ...]:
        """Return the baselines of all studies, each once."""
        arms: dict[tuple[str, ...], Arm] = {}
        for arm in (arm for study in self.studies for arm in study.floor):
            arms.setdefault(tuple(arm.ids.values()), arm)
        return tuple(arms.values())

    @property
    def command(self) -> str:
        """Return the shell command that makes the sweep."""
        return self._command("sweep")

    @property
    def report_command(self) -> str:
        """Return the shell command that makes the report of what MLflow holds of it."""
        return self._command("report")

    def _command(self, name: str) -> str:
        overrides = [word for override in self.overrides for word in ("-s", override)]
        return shlex.join(["selfsup", name, self.spec, *overrides])


def joined(sweeps: Sequence[Sweep]) -> Sweep:
    """Join sweeps side by side."""
    return replace(
        sweeps[0],
        seeds=tuple(dict.fromkeys(seed for sweep in sweeps for seed in sweep.seeds)),
        metrics=tuple(dict.fromkeys(metric for sweep in sweeps for metric in sweep.metrics)),
        studies=tuple(study for sweep in sweeps for study in sweep.studies),
        scales={name: metric for sweep in sweeps for name, metric in sweep.scales.items()},
    )

"""The section `search` of a sweep file: metric, sampler, scheduler and budget.

search: {metric: eval/knn/top1, sampler: tpe, trials: 30}
"""

from fractions import Fraction
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, ValidationInfo, WithJsonSchema, model_validator

from selfsup.knob import Knobs, knob
from selfsup.metric_names import current_name

PARTS = 27  # of a training, in which schedulers count, alike for trainings of any length
RUNGS = (1, 3, 9)  # parts after which ASHA compares trials
LATEST = PARTS / 2  # after which nothing is stopped
MAXIMIZED = ("eval/", "pretrain/rankme", "pretrain/feature_std", "pretrain/samples_per_second")
MINIMIZED = ("pretrain/loss", "pretrain/seconds", "pretrain/gpu_hours", "pretrain/peak_memory_mib")


def _objectives(value: object, info: ValidationInfo) -> tuple[str, ...]:
    """Parse metrics, each into "max eval/knn/top1"."""
    texts = value if isinstance(value, (tuple, list)) else (value,)
    objectives = tuple(_objective(text, info) for text in texts)
    if not objectives or len(set(objectives)) < len(objectives):
        raise ValueError("expected a metric such as eval/knn/top1, or a list of different ones")
    return objectives


def _objective(text: object, info: ValidationInfo) -> str:
    """Parse a metric. An evaluation says of its own whether more of it is better: `metrics` of the context."""
    metrics = (info.context or {}).get("metrics", {})
    direction, _, metric = text.rpartition(" ") if isinstance(text, str) else ("", "", "")
    metric = current_name(metric)
    if metric and not direction:
        usual = "max" if metric.startswith(MAXIMIZED) else "min" if metric in MINIMIZED else ""
        direction = metrics[metric].better or "" if metric in metrics else usual
    if not metric or direction not in ("min", "max"):
        raise ValueError(f"expected a metric such as eval/knn/top1 or 'min pretrain/loss', not {text!r}")
    return f"{direction} {metric}"


Objectives = Annotated[
    tuple[str, ...],
    BeforeValidator(_objectives),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]}),
]
Objective = Annotated[str, BeforeValidator(_objective)]


def _refuse_pbt(value: object) -> object:
    if value == "pbt":
        raise ValueError(
            "pbt is not offered: it overwrites weights and settings while a trial trains, so that no run is a function "
            "of its spec any more, and Tune's only does so for checkpoints of its own; use asha or median"
        )
    return value


AT_RANDOM = {"tpe": 10, "gp": 10, "nsga2": 50, "cmaes": 1}  # so many come before what a sampler has learnt, by Optuna

Scheduler = Annotated[Literal["none", "asha", "median"], BeforeValidator(_refuse_pbt)]


class Search(Knobs):
    """The settings of a search, which ends with the first budget that is spent."""

    metric: Objectives = knob(
        ..., "the metric to optimize, such as eval/knn/top1 or 'min pretrain/loss'; several: a Pareto front"
    )
    sampler: Literal["random", "tpe", "gp", "cmaes", "nsga2"] = knob(
        "tpe", "the sampler of Optuna that proposes trials"
    )
    scheduler: Scheduler = knob("none", "the scheduler that stops trials which fall behind")
    rank: Objective | None = knob(None, "the number that a scheduler ranks training trials by; null: metric")
    trials: int = knob(20, "largest number of trials", ge=1, le=100_000)
    samples: int | None = knob(None, "training samples of all trials together; null: no limit", gt=0)
    hours: float | None = knob(None, "hours by the clock; null: no limit", gt=0)
    seed: int = knob(0, "seed of the sampler", ge=0, le=2**31)
    confirm: int = knob(3, "number of fresh seeds to train the best and the default from again", ge=1, le=1000)
    finalists: int = knob(
        4,
        "number of trials of a Pareto front to train again: its ends by the first metric and, evenly, from between",
        ge=2,
        le=1000,
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(self.metric) > 1 and self.sampler == "cmaes":
            raise ValueError(f"sampler: cmaes follows one metric, not {len(self.metric)}; nsga2 follows several")
        if len(self.metric) == 1 and "finalists" in self.model_fields_set:
            raise ValueError("finalists: without effect, since one metric has one winner")
        if self.scheduler == "none" and self.rank:
            raise ValueError("rank: without effect, since scheduler: none stops no trial")
        if self.scheduler != "none" and not self._sampler_learns:
            raise ValueError(
                f"scheduler: {self.scheduler} stops most trials, and sampler: {self.sampler} learns of whole ones only"
                f"{' where there are several metrics' * (self.sampler == 'tpe')}: it would draw as if at random; say "
                f"scheduler: none{', or sampler: tpe' * (len(self.metric) == 1)}"
            )
        if self.scheduler != "none" and not self._rank_objective:
            raise ValueError(
                f"scheduler: {self.scheduler} ranks trials by one number, and there are several metrics; say which is "
                "it, as rank: pretrain/rankme"
            )
        return self

    @property
    def _sampler_learns(self) -> bool:
        """Return whether the sampler learns from stopped trials, or learns nothing at all."""
        return self.sampler == "random" or (self.sampler == "tpe" and len(self.metric) == 1)

    @property
    def _rank_objective(self) -> str:
        """Return the objective that a scheduler ranks by; "" where several metrics leave that open."""
        return self.rank or (self.metric[0] if len(self.metric) == 1 else "")

    @property
    def objectives(self) -> dict[str, str]:
        """-> metric: min or max."""
        return dict(map(_pair, self.metric))

    @property
    def budget(self) -> str:
        """Write `30 trials, 200,000 samples, 2 hours`."""
        amounts = {"trials": self.trials, "samples": self.samples, "hours": self.hours}
        return ", ".join(f"{amount:,} {name}" for name, amount in amounts.items() if amount is not None)

    def repeats(self, sessions: int) -> str:
        """Write whether a search from the same seed would draw the same trials again."""
        if sessions > 1:
            return f"in {sessions} sessions; in one it would have drawn others"
        same = "it would draw the same again in one session"
        return same if self.sampler == "random" else f"{same} if trials ended in the same order"

    def unjudged(self, gap: int, steps: int) -> str:
        """Write where its scheduler lacks numbers that come every `gap` steps of a training; "" where it has them."""
        parts = [PARTS * step / steps for step in range(gap, steps, gap)]
        ends = zip(RUNGS, (*RUNGS[1:], LATEST), strict=True)
        bare = [str(Fraction(rung, PARTS)) for rung, end in ends if not any(rung <= part < end for part in parts)]
        seldom = f"and {self.ranking[0]} comes every {gap} steps of {steps}; every {max(1, steps // 10)} would do"
        if self.scheduler == "asha" and bare and gap > 1:
            return f"asha compares trials after 1/27, 1/9 and 1/3, {seldom}: it has no number for {', '.join(bare)}"
        if self.scheduler == "median" and sum(part <= LATEST for part in parts) < 2 and gap > 1:
            return f"median compares trials by the first half, {seldom}: it has no two numbers of that"
        return ""

    @property
    def ranking(self) -> tuple[str, str]:
        """-> the metric that a scheduler ranks by, and min or max."""
        return _pair(self._rank_objective)


def _pair(text: str) -> tuple[str, str]:
    direction, metric = text.split()
    return metric, direction

"""A search and its trials from given numbers, for tests of reports, without training."""

from collections.abc import Mapping, Sequence
from typing import Any

from toy_sweep import KNN

from selfsup.knob import Choice, Range
from selfsup.sweeps.result import Result
from selfsup.sweeps.spec.search import Search
from selfsup.sweeps.spec.space import Dimension
from selfsup.sweeps.spec.study import SETTING, Arm, Factor, Study
from selfsup.sweeps.spec.sweep import Sweep
from selfsup.sweeps.spec.trials import SearchResult, Trial

RATIO, RATE, KIND, SECONDS = "hyper.mask_ratio", "optim.lr", "optim.schedule", "pretrain/seconds"
SPACE = (
    Dimension(RATIO, Range(0.4, 0.9), integer=False),
    Dimension(RATE, Range(1e-4, 1e-2, log=True), integer=False),
    Dimension(KIND, Choice("cosine", "linear"), integer=False),
)
DEFAULTS = {RATIO: 0.75, RATE: 1e-3, KIND: "cosine"}

Outcome = Mapping[str, float] | str  # metrics, or the reason of a stop


def trial(number: int, values: Mapping[str, Any], outcome: Outcome, study: str = "mae") -> Trial:
    stopped = isinstance(outcome, str)
    result = Result(
        id=f"{study}-{number}",
        seed=0,
        run=f"run-of-{study}-{number}",
        status="stopped" if stopped else "done",
        reason=outcome if isinstance(outcome, str) else "",
        metrics={} if isinstance(outcome, str) else outcome,
        params={},
        tags={"selfsup.commit": "c0ffee"},
        curves={},
    )
    return Trial(number, study, values, result)


def searched(trials: Sequence[Trial], *, over: bool = True, space: Any = None, **search: Any) -> SearchResult:
    section = Search.model_validate({"metric": KNN} | search)
    return SearchResult(
        section, space or {"mae": SPACE}, dict.fromkeys(space or ["mae"], DEFAULTS), tuple(trials), over
    )


def simple(outcomes: Sequence[Outcome], **search: Any) -> SearchResult:
    """Return a search of trials whose mask ratio falls from 0.9 as their number grows."""
    values = [{RATIO: 0.9 - 0.01 * number, RATE: 1e-3, KIND: "linear"} for number in range(len(outcomes))]
    trials = enumerate(zip(values, outcomes, strict=True), 1)
    return searched([trial(number, *drawn) for number, drawn in trials], **search)


def sweep(search: SearchResult, fresh: Mapping[str, Sequence[float]] | None = None) -> tuple[Sweep, list[Result]]:
    """Return a sweep of a search. fresh: "default" and finalists by name -> a number a fresh seed."""
    arms, results = [], []
    for name, numbers in (fresh or {}).items():
        own = next((trial for trial in search.trials if trial.name == name), None)
        changed = {path: value for path, value in own.values.items() if value != DEFAULTS[path]} if own else {}
        ids = {seed: f"{name}-{seed}" for seed in range(1, len(numbers) + 1)}
        shown = "spec values" if own is None else name
        arms.append(Arm(name, {SETTING: shown}, changed, ids))
        params = {path: str(value) for path, value in (DEFAULTS | changed).items()}
        results += [
            Result(ids[seed], seed, f"run-{ids[seed]}", "done", "", {KNN: number}, params | {"seed": str(seed)}, {}, {})
            for seed, number in enumerate(numbers, 1)
        ]
    setting = Factor(SETTING, tuple(arm.values[SETTING] for arm in arms), "spec values", None, False)
    studies = (Study("mae", "mae", (setting,), (), tuple(arms), {}, ""),) if arms else ()
    seeds = tuple(range(1, search.search.confirm + 1))
    return Sweep("toy", "What is best?", "sweeps/toy.yaml", "5eed", seeds, (KNN,), studies, search=search), results

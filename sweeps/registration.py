"""The plan of a sweep as it was registered in MLflow before the first run, and its changes since earlier plans."""

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from selfsup.sweeps.report.notes import BEST, FAILURES, LOOKS, RULE
from selfsup.sweeps.report.wording import heading, listed, some
from selfsup.sweeps.spec.sweep import Sweep

STOP = "every run goes to its end; none is stopped, left out or added for its results"
STOP_SEARCH = "what the budget allows; only what is run again, from fresh seeds, enters a table"

Ids = Mapping[str, Mapping[int, str]]  # "study: arm" -> seed -> id of the run


class RegisteredPlan(NamedTuple):
    """A plan as it was registered. time: in milliseconds since 1970."""

    digest: str
    time: int
    arms: Ids
    metrics: tuple[str, ...]
    primary: str = ""

    @property
    def when(self) -> str:
        return f"{datetime.fromtimestamp(self.time / 1000, UTC):%Y-%m-%d %H:%M} UTC"


def written(sweep: Sweep) -> bytes:
    """Write a plan as a file: question, what is digested, the tests that will be made, when it ends."""
    arms = {name: {str(seed): key for seed, key in ids.items()} for name, ids in _arms(sweep).items()}
    plan = {"question": sweep.question, "digest": sweep.digest, "metrics": sweep.metrics, "arms": arms}
    plan |= {"primary": sweep.primary, "tests": [RULE, BEST, FAILURES, LOOKS], "stop": STOP}
    if sweep.search:
        plan |= {"search": sweep.search.search.model_dump(mode="json"), "stop": STOP_SEARCH}
    return (json.dumps(plan, indent=1) + "\n").encode()


def read(plan: bytes, time: int) -> RegisteredPlan:
    """Read a plan that `written` wrote."""
    content = json.loads(plan)
    arms = {name: {int(seed): key for seed, key in ids.items()} for name, ids in content["arms"].items()}
    return RegisteredPlan(content["digest"], time, arms, tuple(content["metrics"]), content.get("primary", ""))


def registered(sweep: Sweep, plans: Sequence[RegisteredPlan]) -> RegisteredPlan | None:
    """Return the plan of the sweep among others of its name."""
    return next((plan for plan in plans if plan.digest == sweep.digest), None)


def changes(sweep: Sweep, plans: Sequence[RegisteredPlan]) -> Iterator[str]:
    """Yield a line for each earlier plan of this name: what of it was dropped, and what was added."""
    own = registered(sweep, plans)
    if own and own.primary != sweep.primary:
        was, now = (heading(name) or "none" for name in (own.primary, sweep.primary))
        yield f"since it was registered: the primary metric was {was}, and is {now}"
    for plan in plans:
        if own is None or plan.time < own.time:
            news = [*_arms_changed(plan.arms, _arms(sweep)), *_metrics_changed(plan.metrics, sweep.metrics)]
            yield f"since the plan {plan.digest} of {plan.when}: {'; '.join(news) or 'the same in another order'}"


def looks(sweep: Sweep, plans: Sequence[RegisteredPlan]) -> int:
    """Count earlier plans with the same runs of an arm, but fewer: each was an occasion to look, and to add seeds."""
    own, now = registered(sweep, plans), _arms(sweep)
    before = {
        tuple(sorted((name, *ids.values()) for name, ids in plan.arms.items() if name in now))
        for plan in plans
        if (own is None or plan.time < own.time)
        and any(_fewer(ids, now.get(name, {})) for name, ids in plan.arms.items())
    }
    return len(before)


def _fewer(before: Mapping[int, str], now: Mapping[int, str]) -> bool:
    return set(before.values()) < set(now.values())


def _arms(sweep: Sweep) -> Ids:
    return {f"{study.name}: {arm.name}": arm.ids for study in sweep.studies for arm in study.arms}


def _arms_changed(before: Ids, now: Ids) -> Iterator[str]:
    yield from _gone_and_new("arm", list(before), list(now))
    both = [name for name in before if name in now]
    seeds: dict[str, list[str]] = {}
    for name in both:
        for text in _gone_and_new("seed", list(map(str, before[name])), list(map(str, now[name]))):
            seeds.setdefault(text, []).append(name)
    yield from (text + (f" of {some(names)}" if len(names) < len(both) else "") for text, names in seeds.items())
    other = [name for name in both if any(now[name].get(seed, key) != key for seed, key in before[name].items())]
    if other:
        yield f"settings changed, though not the name, of {some(other)}"


def _metrics_changed(before: Sequence[str], now: Sequence[str]) -> Iterator[str]:
    yield from _gone_and_new("metric", [heading(name) for name in before], [heading(name) for name in now])


def _gone_and_new(kind: str, before: Sequence[str], now: Sequence[str]) -> Iterator[str]:
    gone, new = ([name for name in here if name not in there] for here, there in ((before, now), (now, before)))
    for verb, names in (("dropped", gone), ("added", new)):
        if names:
            yield f"{verb} {kind}{'s' * (len(names) > 1)} {listed(names)}"

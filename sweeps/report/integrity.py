"""The integrity of a sweep: which runs ended how, and proof that arms differ in nothing but their factor."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from selfsup.progress import several
from selfsup.redact import redacted
from selfsup.sweeps.registration import RegisteredPlan, changes, registered
from selfsup.sweeps.report.wording import heading, listed, numbered
from selfsup.sweeps.result import Result
from selfsup.sweeps.spec.study import Arm, Study
from selfsup.sweeps.spec.sweep import Sweep
from selfsup.track import ACCEPTED, COMMIT, DATA, HARDWARE, MODULES

ResultsById = Mapping[str, Result]


def integrity(sweep: Sweep, results: ResultsById, plans: Sequence[RegisteredPlan] = ()) -> dict[str, Any]:
    """Count runs: planned, done, failed, stopped, running, missing; and list, as tuples of text:

    differences: "study: arm" of every arm -> what else differs from its default, seed by seed; empty if nothing does.
    deviations: arms that lack planned seeds, and why. changes: of the plan since earlier plans of this name in MLflow.
    commits, hardware: all that the runs were made with. data: by use, (place, digest) of each data set. mixed: code
    that differs between runs. registered: when the plan was, or "".
    """
    plan = registered(sweep, plans)
    arms = {f"{study.name}: {arm.name}": arm for study in sweep.studies for arm in study.arms}
    all_arms = {arm.name: arm for arm in sweep.baselines} | arms
    ids = {key for arm in all_arms.values() for key in arm.ids.values()}
    status = Counter(results[key].status if key in results else "pending" for key in ids)
    trials = sweep.search.trials if sweep.search else ()
    runs = {trial.result.id: trial.result for trial in trials} | dict(results)
    return {
        "planned": len(ids),
        **{name: status[name] for name in ("done", "failed", "stopped", "running")},
        "missing": status["pending"],
        "differences": {name: tuple(lines) for name, lines in _all_differences(sweep, results)},
        "deviations": tuple(
            line for name, arm in all_arms.items() for line in _lacking(name, arm, results, sweep.metrics)
        ),
        "registered": plan.when if plan else "",
        "changes": tuple(changes(sweep, plans)),
        "commits": _tags(runs, COMMIT),
        "mixed": tuple(_mixed(runs)),
        "hardware": _tags(runs, HARDWARE),
        "data": {use: _datasets(runs, use) for use in _uses(runs)},
    }


def _all_differences(sweep: Sweep, results: ResultsById) -> Iterator[tuple[str, list[str]]]:
    for study in sweep.studies:
        for arm in study.arms[1:]:
            pairs = list(_pairs(study, arm, results))
            if pairs:
                yield f"{study.name}: {arm.name}", [line for pair in pairs for line in _beside(arm, *pair)]


def _pairs(study: Study, arm: Arm, results: ResultsById) -> Iterator[tuple[Result, Result]]:
    """Yield each run of an arm with the default's run of the same seed, where both have started."""
    for seed, key in sorted(arm.ids.items()):
        pair = results.get(key), results.get(study.arms[0].ids.get(seed, ""))
        if pair[0] and pair[1] and pair[0].params and pair[1].params:
            yield pair[0], pair[1]


def _beside(arm: Arm, run: Result, default: Result) -> Iterator[str]:
    """Yield what differs besides the factor that names the arm, and factors that should differ and do not."""
    here, there = _settings(run), _settings(default)
    differing = {path for path in here.keys() | there.keys() if here.get(path) != there.get(path)}
    differing -= {HARDWARE} - (here.keys() & there.keys())  # a run that has not ended has none yet
    named = {path for path in differing if any(f"{path}.".startswith(f"{factor}.") for factor in arm.changed)}
    for path in sorted(differing - named):
        value, other = here.get(path, "nothing"), there.get(path, "nothing")
        yield f"seed {run.seed}: {path}: {value}, in the default {other}"
    for factor in arm.changed:
        if not any(f"{path}.".startswith(f"{factor}.") for path in named):
            yield f"seed {run.seed}: {factor}: as in the default, though the arm is named after it"


def _settings(run: Result) -> dict[str, str]:
    made_with = {name: value for name, value in run.tags.items() if name.startswith((COMMIT, HARDWARE, DATA))}
    return dict(run.params) | made_with


def _mixed(results: ResultsById) -> Iterator[str]:
    digests = {item for run in results.values() for item in run.tags.get(MODULES, "").split()}
    versions = Counter(item.partition(":")[0] for item in digests)
    yield from (f"{number} versions of {name}" for name, number in sorted(versions.items()) if number > 1)
    if number := sum(ACCEPTED in run.tags for run in results.values()):
        yield f"{several(number, 'run')} made by earlier code and accepted"
    if digests and (number := sum(MODULES not in run.tags and run.status == "done" for run in results.values())):
        yield f"{several(number, 'run')} of unknown code"


def _uses(results: ResultsById) -> list[str]:
    """Return what data sets are for: train, val, and such as flowers.train of an evaluation's own."""
    start = f"{DATA}."
    return sorted({tag.removeprefix(start) for run in results.values() for tag in run.tags if tag.startswith(start)})


def _datasets(results: ResultsById, use: str) -> tuple[tuple[str, str], ...]:
    """Return (place, digest) of every data set that runs used so; the place is "" where it is not known."""
    tag = f"{DATA}.{use}"
    return tuple(sorted({(_place(run, use), run.tags[tag]) for run in results.values() if tag in run.tags}))


def _place(run: Result, use: str) -> str:
    evaluation, _, split = use.rpartition(".")
    own = run.params.get(f"evals.{evaluation}.data.{split}")
    return redacted(own or run.params.get(f"data.{split}", ""))


def lacking(run: Result, metrics: Sequence[str]) -> str:
    """Return why a run that is done lacks a usable number under some metric; "" where it lacks none.

    Raw samples have none of protocols that train an encoder, and lack none.
    """
    is_raw = run.tags.get("selfsup.method") == "pixels"
    missing = [heading(name) for name in metrics if name not in run.metrics and not is_raw]
    odd = [heading(name) for name in metrics if not math.isfinite(run.metrics.get(name, 0.0))]
    parts = [f"without {listed(missing)}"] * bool(missing) + [f"{listed(odd)} not finite"] * bool(odd)
    return f"done, {'; '.join(parts)}" if parts else ""


def _lacking(name: str, arm: Arm, results: ResultsById, metrics: Sequence[str]) -> Iterator[str]:
    why: dict[str, list[int]] = {}
    for seed, key in sorted(arm.ids.items()):
        run = results.get(key)
        if run is None or run.status != "done":
            status = run.status if run and run.status != "pending" else "not run"
            why.setdefault(status + (f" ({run.reason})" if run and run.reason else ""), []).append(seed)
        elif without := lacking(run, metrics):
            why.setdefault(without, []).append(seed)
    yield from (f"{name}: {numbered(seeds)}: {text}" for text, seeds in why.items())


def _tags(results: ResultsById, name: str) -> tuple[str, ...]:
    return tuple(sorted({run.tags[name] for run in results.values() if name in run.tags}))

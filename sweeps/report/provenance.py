"""Where every number is from: its run, what that was made with, and the command that makes it again."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from selfsup.sweeps.report import notes
from selfsup.sweeps.report.integrity import COMMIT, DATA, HARDWARE
from selfsup.sweeps.report.table import Ablation
from selfsup.sweeps.result import Result
from selfsup.sweeps.spec.sweep import Sweep

MADE_WITH = {"code": COMMIT, "train": f"{DATA}.train", "val": f"{DATA}.val", "hardware": HARDWARE}  # to its tag


class Trace(NamedTuple):
    """command: what makes the run again. url: of it in MLflow's UI, or ""."""

    arm: str
    result: Result
    command: str
    url: str


def traces(ablation: Ablation) -> Iterator[Trace]:
    """Every planned run, once; then the trials of a search."""
    left = {result.id: result for result in ablation.results}
    sweep = ablation.sweep
    named = [(f"{study.name}: {arm.name}", arm) for study in sweep.studies for arm in study.arms]
    for name, arm in [*named, *((arm.name, arm) for arm in sweep.baselines)]:
        for _, key in sorted(arm.ids.items()):
            if result := left.pop(key, None):
                yield _trace(ablation, name, result)
    for trial in sweep.search.trials if sweep.search else ():
        yield _trace(ablation, f"{trial.study}: {trial.name}, in the search", trial.result)


def _trace(ablation: Ablation, name: str, result: Result) -> Trace:
    url = f"{ablation.place}/runs/{result.run}" if ablation.place and result.run else ""
    return Trace(name, result, command(ablation.sweep, result.id), url)


def command(sweep: Sweep, key: str) -> str:
    """For one run of it. What is done already is not done again, unless SELFSUP_HOME names an empty folder."""
    return f"{sweep.command} --only {key}"


def made_with(run: Result) -> dict[str, str]:
    """The digests of its code and data, and its hardware, as far as they are known."""
    return {name: run.tags[tag] for name, tag in MADE_WITH.items() if tag in run.tags}


def mixed(ablation: Ablation) -> set[str]:
    """What of that the runs differ in."""
    told = [made_with(result) for result in ablation.results]
    return {name for name in MADE_WITH if len({each[name] for each in told if name in each}) > 1}


def settings(ablation: Ablation) -> Iterator[tuple[str, Mapping[str, str]]]:
    """Study -> every setting of its default, as MLflow holds them."""
    held = {result.id: result.params for result in ablation.results if result.params}
    for study in ablation.sweep.studies:
        if known := [held[key] for key in study.arms[0].ids.values() if key in held]:
            yield study.name, dict(sorted(known[0].items()))


def methods(ablation: Ablation) -> tuple[str, ...]:
    """Tell which uncertainty is shown and which tests were made, whatever the table; nothing without one."""
    return notes.general(ablation.sweep, ablation.tables, ablation.looks) if ablation.tables else ()

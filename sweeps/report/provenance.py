"""The origin of every number: its run, what the run was made with, and the command that repeats it."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from selfsup import modality
from selfsup.mlflow_store import WORKFLOW
from selfsup.sweeps.report import artificial, notes
from selfsup.sweeps.report.table import Ablation
from selfsup.sweeps.result import Result
from selfsup.sweeps.spec.sweep import Sweep
from selfsup.track import COMMIT, DATA, HARDWARE

MADE_WITH = {"code": COMMIT, "train": f"{DATA}.train", "val": f"{DATA}.val", "hardware": HARDWARE}  # to its tag


class RunOrigin(NamedTuple):
    """A run of the report. command: repeats it. url: its page in MLflow's UI, or "".

    target: the link to it from a table: that page where all can open it, else its row in the report.
    """

    arm: str
    result: Result
    command: str
    url: str
    target: str


def run_origins(ablation: Ablation) -> Iterator[RunOrigin]:
    """Yield every planned run once, then the trials of a search."""
    remaining = {result.id: result for result in ablation.results}
    sweep = ablation.sweep
    named = [(f"{study.name}: {arm.name}", arm) for study in sweep.studies for arm in study.arms]
    for name, arm in [*named, *((arm.name, arm) for arm in sweep.baselines)]:
        for _, key in sorted(arm.ids.items()):
            if result := remaining.pop(key, None):
                yield _origin(ablation, name, result)
    for trial in sweep.search.trials if sweep.search else ():
        yield _origin(ablation, f"{trial.study}: {trial.name}, in the search", trial.result)


def _origin(ablation: Ablation, name: str, result: Result) -> RunOrigin:
    url = f"{ablation.place}/runs/{result.run}?{WORKFLOW}" if ablation.place and result.run else ""
    target = url if ablation.served and url else f"#{result.id}"
    return RunOrigin(name, result, command(ablation.sweep, result.id), url, target)


def command(sweep: Sweep, key: str) -> str:
    """Return the command for one run. Finished stages do not run again unless SELFSUP_HOME names an empty folder."""
    return f"{sweep.command} --only {key}"


def made_with(run: Result) -> dict[str, str]:
    """Return the digests of a run's code and data, and its hardware, as far as they are known."""
    return {name: run.tags[tag] for name, tag in MADE_WITH.items() if tag in run.tags}


def mixed(ablation: Ablation) -> set[str]:
    """Return which of MADE_WITH differ between runs."""
    runs = [made_with(result) for result in ablation.results]
    return {name for name in MADE_WITH if len({run[name] for run in runs if name in run}) > 1}


def settings(ablation: Ablation) -> Iterator[tuple[str, Mapping[str, str]]]:
    """Yield each study with every setting of its default that its kind of data heeds, as MLflow holds them."""
    params = {result.id: result.params for result in ablation.results if result.params}
    for study in ablation.sweep.studies:
        if defaults := [params[key] for key in study.arms[0].ids.values() if key in params]:
            without_effect = _idle(defaults[0])
            yield study.name, {path: value for path, value in sorted(defaults[0].items()) if path not in without_effect}


def _idle(params: Mapping[str, str]) -> tuple[str, ...]:
    """Return the settings without effect on a run's kind of data, such as audio's backbone.image_size."""
    kinds = {path.split(".")[1] for path in params if path.startswith("input.")} & set(modality.names())
    return modality.load(kinds.pop()).idle if kinds else ()


def methods(ablation: Ablation) -> tuple[str, ...]:
    """Return the notes on data, uncertainty and tests; empty without a table."""
    if not ablation.tables:
        return ()
    made = artificial.note(ablation.integrity["data"])
    return (*([made] if made else []), *notes.general_notes(ablation.sweep, ablation.tables, ablation.looks))

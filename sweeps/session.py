"""A sweep from its file to its report: what the commands of a terminal and the functions of a notebook share."""

from collections.abc import Collection, Sequence
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import ray

from selfsup import whole
from selfsup.errors import SelfsupError, SpecError
from selfsup.failures import Failure
from selfsup.mlflow_store import home
from selfsup.origin import Answer, settle
from selfsup.pipelines.cluster.embedded import cluster
from selfsup.pipelines.planned import PlannedRun
from selfsup.sweeps import mlflow_tree
from selfsup.sweeps.driver import execute
from selfsup.sweeps.explore import explore, left
from selfsup.sweeps.layout import entries, lay_out, proposed, store
from selfsup.sweeps.recorder import Recorder
from selfsup.sweeps.report import paper
from selfsup.sweeps.report.files import files, pictures, read
from selfsup.sweeps.report.table import Ablation
from selfsup.sweeps.spec import sweepfile
from selfsup.sweeps.spec.sweep import Sweep
from selfsup.sweeps.spec.sweepfile import SweepFile
from selfsup.track import Tracker

if TYPE_CHECKING:
    import pandas as pd


def plan(path: str | Path, *overrides: str) -> "pd.DataFrame":
    """A row a run: study, arm, seed, id, status and why. overrides: such as "train.batch=64". Starts nothing."""
    import pandas as pd

    return pd.DataFrame(entries(sweepfile.read(Path(path), overrides)))


def sweep(path: str | Path, *overrides: str, code: Answer = "refuse") -> "pd.DataFrame":
    """Run what is missing of a sweep; `report` of it. Raises the first failure once everything else has ended.

    code: what to do with results that other code made.
    """
    arms, failed = conduct(sweepfile.read(Path(path), overrides), store(), code=code)
    if failed:
        raise failed[0].exception()
    return _frame(arms)


def report(path: str | Path, *overrides: str) -> "pd.DataFrame":
    """A row a run and metric, from what MLflow holds of a sweep now."""
    return _frame(lay_out(sweepfile.read(Path(path), overrides))[0])


def conduct(
    found: SweepFile, tracker: Tracker, only: Collection[str] = (), code: Answer = "refuse"
) -> tuple[Sweep, list[Failure]]:
    """Run what is missing, or of that what `only` names by id; then write the report.

    Raises SelfsupError where no trial of a search came to a result.
    """
    with ExitStack() as stack:
        if found.search and not only:
            _settle_trials(found, tracker, code)
            if left(found, home()) and not ray.is_initialized():
                stack.enter_context(cluster())
            explore(found, tracker, home(), code)
        arms, planned = lay_out(found, tracker)
        if only:
            planned = proposed(found, arms) | planned
        elif not planned:
            raise SelfsupError(f"{arms.spec}: no trial came to a result; `selfsup status {arms.spec}` says why")
        if unknown := set(only) - planned.keys():
            asked, listing = " or ".join(sorted(unknown)), f"`selfsup status {arms.spec} --json`"
            raise SpecError(f"{arms.spec}: no run is called {asked}; {listing} lists them")
        recorder = Recorder(tracker, mlflow_tree.tags(arms), mlflow_tree.plant(tracker, arms))
        return arms, perform([run for key, run in planned.items() if not only or key in only], recorder, code)


def _settle_trials(found: SweepFile, tracker: Tracker, code: Answer) -> None:
    """Those of a search, whose results it has learnt from: they can be accepted, and not be made again."""
    if code == "again":
        raise SpecError(f"{found.path}: --again: a search has learnt from its trials; begin another by search.seed")
    trials = proposed(found, lay_out(found, tracker)[0]).values()
    settle((stage for trial in trials for stage in trial.stages), code)


def perform(runs: Sequence[PlannedRun], recorder: Recorder, code: Answer = "refuse") -> list[Failure]:
    """Bring runs to their end, on Ray if there is anything to do. code: what to do with what other code made."""
    settle((stage for each in runs for stage in each.stages), code)
    with nullcontext() if ray.is_initialized() or all(each.done for each in runs) else cluster():
        return execute(runs, recorder)


def write(arms: Sweep, tracker: Tracker) -> tuple[Ablation, Path]:
    """The report, under SELFSUP_HOME and with the sweep's run in MLflow; its numbers, and where its page is."""
    found = read(arms, tracker, cache=home() / "cache")
    root, folder = mlflow_tree.open_sweep(tracker, arms), home() / "reports" / arms.name
    for name, data in files(found, pictures(found, tracker)).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        whole.write(path, data)
        tracker.artifact(root, path, str(Path("report", name).parent))
    mlflow_tree.summarise(tracker, found)
    return found, folder / "report.html"


def _frame(arms: Sweep) -> "pd.DataFrame":
    return paper.frame(read(arms, store(), cache=home() / "cache")).to_pandas()

"""A sweep from its file to its report: shared by the commands of a terminal and the functions of a notebook."""

from collections.abc import Collection, Sequence
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import ray

from selfsup.errors import SelfsupError, SpecError
from selfsup.failures import Failure
from selfsup.mlflow_store import home
from selfsup.origin import CodePolicy, settle
from selfsup.pipelines.cluster.ray_context import ray_context
from selfsup.pipelines.planned import PlannedRun
from selfsup.pipelines.planning import unique
from selfsup.sweeps import mlflow_tree
from selfsup.sweeps.driver import execute
from selfsup.sweeps.explore import explore, left
from selfsup.sweeps.layout import lay_out, proposed
from selfsup.sweeps.plans import Plan
from selfsup.sweeps.recorder import Recorder
from selfsup.sweeps.report import paper
from selfsup.sweeps.report.files import side_by_side
from selfsup.sweeps.reports import frame
from selfsup.sweeps.spec import sweepfile
from selfsup.sweeps.spec.sweep import Sweep
from selfsup.sweeps.spec.sweepfile import SweepFile
from selfsup.sweeps.standing import ShownTable, keep_table, table_numbers
from selfsup.track import Tracker, store

if TYPE_CHECKING:
    import pandas as pd


def sweep(path: str | Path, *overrides: str, code: CodePolicy = "refuse") -> "pd.DataFrame":
    """Run what is missing of a sweep; return its `report`. Raises the first failure once everything else has ended.

    code: what to do with results that other code made.
    """
    arms, failed = conduct(sweepfile.read(Path(path), overrides), store(), code=code)
    if failed:
        raise failed[0].exception()
    return frame(arms)


def conduct(
    sweep_file: SweepFile, tracker: Tracker, only: Collection[str] = (), code: CodePolicy = "refuse"
) -> tuple[Sweep, list[Failure]]:
    """Run what is missing, or of that the runs whose ids `only` names.

    Raises SelfsupError where no trial of a search came to a result.
    """
    with ExitStack() as stack:
        if sweep_file.search and not only:
            _settle_trials(sweep_file, tracker, code)
            if left(sweep_file, home()) and not ray.is_initialized():
                stack.enter_context(ray_context())
            explore(sweep_file, tracker, home(), code)
        arms, planned = lay_out(sweep_file, tracker)
        if only:
            planned = proposed(sweep_file, arms) | planned
        elif not planned:
            raise SelfsupError(f"{arms.spec}: no trial came to a result; `selfsup status {arms.spec}` says why")
        if unknown := set(only) - planned.keys():
            names, listing = " or ".join(sorted(unknown)), f"`selfsup status {arms.spec} --json`"
            raise SpecError(f"{arms.spec}: no run is called {names}; {listing} lists them")
        recorder = Recorder(tracker, mlflow_tree.tags(arms), mlflow_tree.plant(tracker, arms))
        return arms, perform([run for key, run in planned.items() if not only or key in only], recorder, code)


def _settle_trials(sweep_file: SweepFile, tracker: Tracker, code: CodePolicy) -> None:
    """Settle code for trials, which the search has learnt from: they can be accepted, and not be made again."""
    if code == "again":
        raise SpecError(
            f"{sweep_file.path}: --again: a search has learnt from its trials; begin another by search.seed"
        )
    trials = proposed(sweep_file, lay_out(sweep_file, tracker)[0]).values()
    settle((stage for trial in trials for stage in trial.stages), code)


def complete(plans: Sequence[Plan], tracker: Tracker, code: CodePolicy) -> tuple[ShownTable, list[Failure]]:
    """Run what is missing of specs: -> their table, and what failed."""
    runs = unique([run for plan in plans for run in plan.planned[1].values()])
    failed = perform(runs, Recorder(tracker), code)
    made_of = "" if failed else table_numbers(plans, home())
    table = side_by_side([plan.sweep for plan in plans], tracker)
    first_seed = min((run.run.seed for run in runs), default=0)
    drawn = [(run, stage) for run in runs if run.run.seed == first_seed for stage in run.drawings if stage.done]
    pictures = [(f"{path.stem}, {run.label}", str(path)) for run, stage in drawn for path in stage.artifacts()]
    trained = next((run.id for run in runs if run.pretrain and run.done), None)
    shown = ShownTable(paper.console(table), tuple(pictures), trained)
    keep_table(plans, shown, made_of, home())
    return shown, failed


def perform(runs: Sequence[PlannedRun], recorder: Recorder, code: CodePolicy = "refuse") -> list[Failure]:
    """Run everything to its end, on Ray if there is work. code: what to do with results that other code made."""
    settle((stage for run in runs for stage in run.stages), code)
    with nullcontext() if ray.is_initialized() or all(run.done for run in runs) else ray_context():
        return execute(runs, recorder)

"""The layout of a sweep as arms and runs; the arms of a search follow from the trials that MLflow holds."""

from dataclasses import replace

from selfsup.mlflow_store import default_uri, home
from selfsup.pipelines.planned import PlannedRun
from selfsup.sweeps.report.results import search_record
from selfsup.sweeps.spec.confirm import confirmation, plan_again, search_sweep
from selfsup.sweeps.spec.expand import expand
from selfsup.sweeps.spec.sweep import Sweep
from selfsup.sweeps.spec.sweepfile import SweepFile
from selfsup.sweeps.status import RunStatus, run_statuses, trial_statuses
from selfsup.track import Tracker


def lay_out(sweep_file: SweepFile, tracker: Tracker | None = None) -> tuple[Sweep, dict[str, PlannedRun]]:
    """-> the arms of a sweep, and their runs by id. A search has no arms before it is over: then they are its best.

    tracker: the MLflow that holds its trials; the one in use if left out.
    """
    if sweep_file.search is None:
        return expand(sweep_file, home())
    tracker = tracker or Tracker(default_uri(home()))
    bare = search_sweep(sweep_file, (), home())
    record = search_record(tracker, bare, cache=home() / "cache")
    over = record.spent == sweep_file.search.budget
    sweep = search_sweep(sweep_file, record.trials, home(), over=over, sessions=record.sessions)
    if not over or not sweep.search or not sweep.search.best:
        return sweep, {}
    arms, planned = expand(confirmation(sweep_file, sweep.search), home())
    return replace(arms, search=sweep.search), planned


def proposed(sweep_file: SweepFile, sweep: Sweep) -> dict[str, PlannedRun]:
    """-> id: run of each trial of a search; empty for another sweep."""
    trials = sweep.search.trials if sweep.search else ()
    return {trial.result.id: plan_again(sweep_file, trial, home()) for trial in trials}


def statuses(sweep_file: SweepFile) -> list[RunStatus]:
    """Return the status of every run of a sweep, the trials of a search first."""
    sweep, planned = lay_out(sweep_file)
    return [*trial_statuses(sweep_file, sweep, home()), *run_statuses(sweep, planned)]

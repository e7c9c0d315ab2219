"""A sweep laid out as arms and runs, of a search too, whose arms follow from the trials that MLflow holds."""

from dataclasses import replace

from selfsup.mlflow_store import default_uri, home
from selfsup.pipelines.planned import PlannedRun
from selfsup.sweeps import mlflow_tree
from selfsup.sweeps.report.results import trials
from selfsup.sweeps.spec.confirm import confirmation, plan_again, search_sweep
from selfsup.sweeps.spec.expand import expand
from selfsup.sweeps.spec.sweep import Sweep
from selfsup.sweeps.spec.sweepfile import SweepFile
from selfsup.sweeps.status import Entry, ledger, ledger_of_search
from selfsup.track import Tracker


def store() -> Tracker:
    """The MLflow in use, connected. Raises TrackError."""
    return Tracker(default_uri(home())).connect()


def lay_out(it: SweepFile, tracker: Tracker | None = None) -> tuple[Sweep, dict[str, PlannedRun]]:
    """The arms of a sweep and their runs by id. A search has none before it is over: then they are its best.

    tracker: the MLflow that holds its trials; the one in use if left out.
    """
    if it.search is None:
        return expand(it, home())
    tracker = tracker or store()
    bare = search_sweep(it, (), home())
    budget, sessions = mlflow_tree.spent(tracker, bare)
    over, found = budget == it.search.budget, trials(tracker, bare, cache=home() / "cache")
    sweep = search_sweep(it, found, home(), over=over, sessions=sessions)
    if not over or not sweep.search or not sweep.search.best:
        return sweep, {}
    arms, planned = expand(confirmation(it, sweep.search), home())
    return replace(arms, search=sweep.search), planned


def proposed(it: SweepFile, sweep: Sweep) -> dict[str, PlannedRun]:
    """The trials of a search as runs, by id; nothing of another sweep."""
    trials = sweep.search.trials if sweep.search else ()
    return {trial.result.id: plan_again(it, trial, home()) for trial in trials}


def entries(it: SweepFile) -> list[Entry]:
    """Where every run of a sweep stands, the trials of a search first."""
    sweep, planned = lay_out(it)
    return [*ledger_of_search(it, sweep, home()), *ledger(sweep, planned)]

"""Reports of a sweep from what there is of it: shared by the commands of a terminal and the functions of a notebook.

Nothing here needs Ray.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from selfsup import whole
from selfsup.mlflow_store import home
from selfsup.stage import digest
from selfsup.sweeps import mlflow_tree
from selfsup.sweeps.layout import lay_out
from selfsup.sweeps.plans import statuses
from selfsup.sweeps.report import paper
from selfsup.sweeps.report.files import files, pictures, read
from selfsup.sweeps.report.table import Ablation
from selfsup.sweeps.spec import sweepfile
from selfsup.sweeps.spec.sweep import Sweep
from selfsup.track import Tracker, store

if TYPE_CHECKING:
    import pandas as pd


def plan(path: str | Path, *overrides: str) -> "pd.DataFrame":
    """Return a row per run: study, arm, seed, id, status and why.

    overrides: such as "train.batch=64". Starts nothing.
    """
    import pandas as pd

    return pd.DataFrame(statuses(Path(path), overrides)).drop(columns="metrics")


def report(path: str | Path, *overrides: str) -> "pd.DataFrame":
    """Return a row per run and metric, from what MLflow holds of a sweep now."""
    return frame(lay_out(sweepfile.read(Path(path), overrides))[0])


def write(arms: Sweep, tracker: Tracker) -> tuple[Ablation, Path]:
    """Write the report, to SELFSUP_HOME and the sweep's run in MLflow: -> its numbers, and the path of its page."""
    ablation = read(arms, tracker, cache=home() / "cache")
    root, folder = mlflow_tree.open_sweep(tracker, arms), report_folder(arms)
    for name, data in files(ablation, pictures(ablation, tracker)).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        whole.write(path, data)
        tracker.artifact(root, path, str(Path("report", name).parent))
    mlflow_tree.summarize(tracker, ablation)
    return ablation, folder / "report.html"


def report_folder(arms: Sweep) -> Path:
    """Return where the report of a sweep lies: `reports/NAME`, and with values of the command line beside it."""
    variant = f"-{digest({'overrides': arms.overrides})}" if arms.overrides else ""
    return home() / "reports" / f"{arms.name}{variant}"


def frame(arms: Sweep) -> "pd.DataFrame":
    """Return a row per run and metric."""
    return paper.frame(read(arms, store(), cache=home() / "cache")).to_pandas()

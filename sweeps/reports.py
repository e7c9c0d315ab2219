"""Reports of a sweep from what there is of it: shared by the commands of a terminal and the functions of a notebook.

Nothing here needs Ray.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from selfsup import whole
from selfsup.homes import publish
from selfsup.mlflow_store import home
from selfsup.stage import digest, read_json, record
from selfsup.sweeps import mlflow_tree, mlflow_views
from selfsup.sweeps.plans import statuses
from selfsup.sweeps.report import paper
from selfsup.sweeps.report.files import files, pictures, read
from selfsup.sweeps.report.table import Ablation
from selfsup.sweeps.spec import sweepfile
from selfsup.sweeps.spec.sweep import Sweep
from selfsup.sweeps.standing import ShownReport, keep, numbers
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
    from selfsup.sweeps.layout import lay_out

    return frame(lay_out(sweepfile.read(Path(path), overrides))[0])


def renew(arms: Sweep, tracker: Tracker) -> ShownReport:
    """Write the report, and return what is shown of it."""
    made_of = numbers(arms, home())
    ablation, page = write(arms, tracker)
    lines = [
        *_results(ablation),
        f"the report:      {page}",
        f"                 {arms.report_command} --open",
        "every number:    selfsup ui",
    ]
    links = mlflow_views.links(tracker, arms.name, arms.digest).items()
    lines += [f"{f'MLflow, {title}:':<16} {url}" for title, url in links]
    report = ShownReport(paper.console(ablation), tuple(lines), str(page))
    keep(arms, report, made_of, home())
    return report


def _results(ablation: Ablation) -> Iterator[str]:
    """Yield where pictures of a run are, and how its features are had."""
    for run in [result for result in ablation.results if result.metrics.get("pictures/images")][:1]:
        for key in read_json(record(home(), run.id), stages=list)["stages"]:
            if str(key).startswith("pictures-"):
                yield f"reconstructions: {home() / 'stages' / key / 'reconstructions.png'}"
    trained = {key for study in ablation.sweep.studies for key in study.arms[0].ids.values()}
    for run in [result for result in ablation.results if result.id in trained and result.status == "done"][:1]:
        yield f"features:        selfsup embed {run.id} SAMPLES OUT.parquet"


def write(arms: Sweep, tracker: Tracker) -> tuple[Ablation, Path]:
    """Write the report, to SELFSUP_HOME and the sweep's run in MLflow: -> its numbers, and the path of its page."""
    ablation = read(arms, tracker, cache=home() / "cache")
    root, folder = mlflow_tree.open_sweep(tracker, arms), report_folder(arms)
    for name, data in files(ablation, pictures(ablation, tracker)).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        whole.write(path, data)
        tracker.artifact(root, path, str(Path("report", name).parent))
    publish(folder)
    mlflow_tree.summarize(tracker, ablation)
    return ablation, folder / "report.html"


def report_folder(arms: Sweep) -> Path:
    """Return where the report of a sweep lies: `reports/NAME`, and with values of the command line beside it."""
    variant = f"-{digest({'overrides': arms.overrides})}" if arms.overrides else ""
    return home() / "reports" / f"{arms.name}{variant}"


def frame(arms: Sweep) -> "pd.DataFrame":
    """Return a row per run and metric."""
    return paper.frame(read(arms, store(), cache=home() / "cache")).to_pandas()

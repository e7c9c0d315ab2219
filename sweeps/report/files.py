"""From MLflow to the tables and figures that a paper would print. It reads MLflow and the spec, and nothing else."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from selfsup.mlflow_store import experiment_page
from selfsup.sweeps import mlflow_tree
from selfsup.sweeps.report.results import gather
from selfsup.sweeps.report.table import Ablation
from selfsup.sweeps.report.tables import ablation
from selfsup.sweeps.spec.study import Arm
from selfsup.sweeps.spec.sweep import Sweep, joined
from selfsup.track import Tracker

CURVES = ("pretrain/loss", "pretrain/feature_std", "pretrain/rankme")
PICTURES = "pictures/reconstructions.png"


def read(sweep: Sweep, tracker: Tracker, *, cache: Path | None = None) -> Ablation:
    """What MLflow holds of a sweep now, also while it runs. cache: a folder that makes the next call fast."""
    results = gather(tracker, sweep, curves=CURVES, cache=cache)
    held = tracker.experiment(sweep.name)
    place = experiment_page(tracker.uri, held.experiment_id) if held else ""
    return ablation(sweep, results, mlflow_tree.plans(tracker, sweep.name), place)


def beside(sweeps: Sequence[Sweep], tracker: Tracker) -> Ablation:
    """The defaults of several in one table, over the baselines that they share."""
    results = [result for sweep in sweeps for result in gather(tracker, sweep)]
    return ablation(joined(sweeps), results)


def files(found: Ablation, pictures: Mapping[str, bytes]) -> dict[str, bytes]:
    """The whole report, by path: a page, the paper's tables, the numbers, the figures. The same bytes each time."""
    from selfsup.sweeps.report import figures, paper, searchplots
    from selfsup.sweeps.report.page import page

    drawn = [*searchplots.drawings(found.sweep.search), *figures.drawings(found)]
    made = {
        "report.html": page(found, drawn, pictures).encode(),
        "report.md": paper.markdown(found).encode(),
        "report.tex": paper.latex(found).encode(),
        "results.csv": paper.csv(found),
        "results.parquet": paper.parquet(found),
    }
    for drawing in drawn:
        name = "-".join(part for part in (drawing.study, drawing.kind) if part)
        made[f"figures/{name}.svg"] = figures.svg(drawing.figure)
        made[f"figures/{name}.png"] = figures.png(drawing.figure)
    return made


def pictures(found: Ablation, tracker: Tracker) -> dict[str, bytes]:
    """The reconstructions of every arm that has some, of its first seed: the same images under the same masks."""
    runs = {result.id: result.run for result in found.results if result.status == "finished"}
    made = {}
    for name, arm in _named(found.sweep):
        run = runs.get(arm.ids[min(arm.ids)])
        if run and (data := tracker.fetch(run, PICTURES)):
            made[name] = data
    return made


def _named(sweep: Sweep) -> Iterator[tuple[str, Arm]]:
    several = len(sweep.studies) > 1
    for study in sweep.studies:
        yield from ((f"{study.name}: {arm.name}" if several else arm.name, arm) for arm in study.arms)

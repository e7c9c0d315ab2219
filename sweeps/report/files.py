"""The files of a report, from MLflow and the spec alone: page, tables, numbers, figures."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from selfsup.mlflow_store import experiment_page, is_server
from selfsup.sweeps import mlflow_tree
from selfsup.sweeps.report.results import gather
from selfsup.sweeps.report.table import Ablation
from selfsup.sweeps.report.tables import ablation
from selfsup.sweeps.result import Result
from selfsup.sweeps.spec.study import Arm
from selfsup.sweeps.spec.sweep import Sweep, joined
from selfsup.track import Tracker

CURVES = ("pretrain/loss", "pretrain/feature_std", "pretrain/rankme")
RECONSTRUCTIONS = "reconstructions"
VISUALS = ("neighbors", "patches", "attention", "map")
PAINTED = "painted"


def read(sweep: Sweep, tracker: Tracker, *, cache: Path | None = None) -> Ablation:
    """Read what MLflow holds of a sweep now, also while it runs. cache: a folder that makes the next call fast."""
    results = gather(tracker, sweep, curves=(*CURVES, *sweep.metrics), cache=cache)
    experiment = tracker.experiment(sweep.name)
    place = experiment_page(tracker.uri, experiment.experiment_id) if experiment else ""
    plans = mlflow_tree.plans(tracker, sweep.name)
    return ablation(sweep, results, plans, place, served=is_server(tracker.uri))


def side_by_side(sweeps: Sequence[Sweep], tracker: Tracker) -> Ablation:
    """Put the defaults of several sweeps in one table, over the baselines that they share."""
    results = [result for sweep in sweeps for result in gather(tracker, sweep)]
    return ablation(joined(sweeps), results)


def files(ablation: Ablation, pictures: Mapping[str, Mapping[str, bytes]]) -> dict[str, bytes]:
    """-> path: bytes of every file of the report. Equal results give equal bytes."""
    from selfsup.sweeps.report import figures, paper, searchplots
    from selfsup.sweeps.report.page import page

    drawings = [*searchplots.drawings(ablation.sweep.search), *figures.drawings(ablation)]
    contents = {
        "report.html": page(ablation, drawings, pictures).encode(),
        "report.md": paper.markdown(ablation).encode(),
        "report.tex": paper.latex(ablation).encode(),
        "results.csv": paper.csv(ablation),
        "results.parquet": paper.parquet(ablation),
    }
    for drawing in drawings:
        name = "-".join(part for part in (drawing.study, drawing.kind) if part)
        contents[f"figures/{name}.svg"] = drawing.svg
        contents[f"figures/{name}.png"] = drawing.png
    return contents


def pictures(ablation: Ablation, tracker: Tracker) -> dict[str, dict[str, bytes]]:
    """-> kind -> arm name: PNG of its first seed, of the same images for all."""
    runs = {result.id: result for result in ablation.results if result.status == "done"}
    images: dict[str, dict[str, bytes]] = {}
    for name, arm in _named(ablation.sweep):
        if run := runs.get(arm.ids[min(arm.ids)]):
            for kind, path in _picture_paths(run):
                if run.run and (data := tracker.fetch(run.run, path)):
                    images.setdefault(kind, {})[f"{name}{_explained(run) if kind == PAINTED else ''}"] = data
    return images


def _explained(run: Result) -> str:
    """Return such as ": 41 % explained, 43 % shared", as the numbers of painted images are."""
    return f": {run.metrics['paint/explained']:.0f} % explained, {run.metrics['paint/shared']:.0f} % shared"


def _picture_paths(run: Result) -> Iterator[tuple[str, str]]:
    """Yield kind and path of the pictures that a run may have."""
    yield RECONSTRUCTIONS, f"pictures/{RECONSTRUCTIONS}.png"
    if "visualize/images" in run.metrics:
        yield from ((kind, f"visualize/{kind}.png") for kind in VISUALS)
    if "paint/images" in run.metrics:
        yield PAINTED, f"paint/{PAINTED}.png"


def _named(sweep: Sweep) -> Iterator[tuple[str, Arm]]:
    """Yield arms by name, baselines first: of these images are painted, too."""
    yield from ((arm.name, arm) for arm in sweep.baselines)
    several = len(sweep.studies) > 1
    for study in sweep.studies:
        yield from ((f"{study.name}: {arm.name}" if several else arm.name, arm) for arm in study.arms)

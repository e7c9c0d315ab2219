"""From MLflow to the tables and figures that a paper would print. It reads MLflow and the spec, and nothing else."""

import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from selfsup.arms import Arm, Sweep
from selfsup.results import gather
from selfsup.tables import Ablation, ablation
from selfsup.track import ID, LABEL, SEED, Tracker
from selfsup.wording import heading

NOTHING = "–"
CURVES = ("pretrain/loss", "pretrain/feature_std", "pretrain/rankme")
PICTURES = "pictures/reconstructions.png"


def read(sweep: Sweep, tracker: Tracker, *, cache: Path | None = None) -> Ablation:
    """What MLflow holds of a sweep now, also while it runs. cache: a folder that makes the next call fast."""
    return ablation(sweep, gather(tracker, sweep, curves=CURVES, cache=cache))


def files(found: Ablation, pictures: Mapping[str, bytes]) -> dict[str, bytes]:
    """The whole report, by path: a page, the paper's tables, the numbers, the figures. The same bytes each time."""
    from selfsup import figures, paper
    from selfsup.page import page

    drawn = figures.drawings(found)
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


class Row(NamedTuple):
    """One Run in MLflow. label: what its line of the table is called. metrics: the latest value of each."""

    id: str
    label: str
    seed: str
    status: str
    metrics: Mapping[str, float]


class Cell(NamedTuple):
    """One metric over the seeds of a label. n: seeds that have it."""

    n: int
    mean: float
    sd: float | None  # over seeds, n - 1 in the denominator; None for one seed


def rows(tracker: Tracker, *, experiment: str, ids: Iterable[str]) -> list[Row]:
    """The runs with these ids, in the order of the ids; an id that MLflow does not know has no row."""
    found = {run.data.tags[ID]: run for run in tracker.runs(experiment)}
    return [
        Row(
            id=key,
            label=run.data.tags.get(LABEL, run.info.run_name or key),
            seed=run.data.tags.get(SEED, ""),
            status=run.info.status,
            metrics=run.data.metrics,
        )
        for key in ids
        if (run := found.get(key))
    ]


def cell(values: Sequence[float]) -> Cell | None:
    """Mean and sample standard deviation; None for no values."""
    if not values:
        return None
    return Cell(len(values), statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None)


def table(rows: Sequence[Row], metrics: Sequence[str]) -> str:
    """Aligned text: a line a label in order of appearance; the number of runs; a column a metric, "mean ± sd".

    `*` stands at the highest mean. A run without the metric counts in no mean, and shows: "71.25 ± 0.35 (2 of 3)".
    """
    seeds: dict[str, list[Row]] = {}
    for row in rows:
        seeds.setdefault(row.label, []).append(row)
    columns = [_column("", list(seeds)), _column("n", [str(len(group)) for group in seeds.values()])]
    for metric in metrics:
        cells = [cell([row.metrics[metric] for row in group if metric in row.metrics]) for group in seeds.values()]
        columns.append(_column(heading(metric), _written(cells, expected=[len(group) for group in seeds.values()])))
    return "\n".join("  ".join(line).rstrip() for line in zip(*columns, strict=True))


def _written(cells: Sequence[Cell | None], *, expected: Sequence[int]) -> list[str]:
    """The cells of one column, their means under each other."""
    best = max((found.mean for found in cells if found), default=None)
    means = [f"{found.mean:.2f}" if found else NOTHING for found in cells]
    spreads = [f" ± {found.sd:.2f}" if found and found.sd is not None else "" for found in cells]
    marks = ["*" if found and found.mean == best else "" for found in cells]
    counts = [found.n if found else 0 for found in cells]
    shares = [f" ({n} of {all_n})" if n < all_n else "" for n, all_n in zip(counts, expected, strict=True)]
    width = max(map(len, means), default=0)
    parts = zip(means, spreads, marks, shares, strict=True)
    return [f"{mean.rjust(width)}{spread}{mark}{share}" for mean, spread, mark, share in parts]


def _column(name: str, texts: Sequence[str]) -> list[str]:
    width = max(map(len, [name, *texts]))
    return [text.ljust(width) for text in [name, *texts]]

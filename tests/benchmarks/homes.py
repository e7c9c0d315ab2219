"""CPU of commands over homes of 10^3, 10^4 and 10^5 finished stages, ten to a run: the curve shows what grows faster.

python tests/benchmarks/homes.py [STAGES...]

Each home is made up: its runs are planned, and their folders and rows in MLflow written without any training. Every
command runs in a process of its own, once with nothing kept of an earlier one and once more.
"""

import json
import random
import sys
import tempfile
import uuid
from collections.abc import Iterator
from multiprocessing import get_context
from pathlib import Path

import yaml
from cli import command, seconds
from report_10k import BEGAN, insert

from selfsup import origin
from selfsup.pipelines.planned import PlannedRun
from selfsup.pipelines.records import remember
from selfsup.stage import Stage, digest
from selfsup.sweeps import mlflow_tree
from selfsup.sweeps.spec import sweepfile
from selfsup.sweeps.spec.expand import expand
from selfsup.track import Tracker

Row = tuple[object, ...]
SEEDS, STAGES_A_RUN, STEPS = 10, 10, 8
EVALS = {f"k{k}": {"use": "knn", "k": k} for k in (1, 2, 5, 10, 20, 50)}
COMMANDS = ("plan", "status", "report", "runs", "clean --dry-run")


def spec(stages: int) -> dict[str, object]:
    """A sweep of so many stages: pretrain, pictures, embed and seven evaluations a run, ten seeds an arm."""
    arms = stages // STAGES_A_RUN // SEEDS
    axes = {
        "hyper.mask_ratio": [0.5, 0.6, 0.75, 0.85, 0.9],
        "optim.lr": [round(1e-3 * 1.01**number, 9) for number in range(arms // 5)],
    }
    return {
        "name": "many",
        "extends": "photos/mae",
        "train": {"duration": {"steps": STEPS}},
        "optim": {"warmup": None},
        "evals": {"linear": None, **EVALS},
        "seeds": SEEDS,
        "baselines": False,
        "grid": axes,
    }


def fill(file: Path, home: Path) -> None:
    """Finish all runs of a sweep: folders and records of theirs, and rows of MLflow."""
    sweep, planned = expand(sweepfile.read(file, ()), home)
    tracker = Tracker(f"sqlite:///{home / 'mlflow.db'}").connect()
    mlflow_tree.open_sweep(tracker, sweep)
    experiment = tracker.experiment(sweep.name)
    assert experiment
    tags = mlflow_tree.tags(sweep)
    rows: dict[str, list[Row]] = {}
    for number, run in enumerate(planned.values()):
        remember(run)
        for stage in run.stages:
            _finish(stage)
        for table, new in _rows(run, tags[run.id], int(experiment.experiment_id), BEGAN + 60_000 * number):
            rows.setdefault(table, []).append(new)
    insert(home / "mlflow.db", rows)


def _finish(stage: Stage) -> None:
    if stage.done:
        return
    stage.folder.mkdir(parents=True)
    points = [{"step": step, "time": BEGAN, "values": {"loss": 1 / step}} for step in range(2, STEPS + 1, 2)]
    record = {"result": {"top1": random.random()}, "time": BEGAN}
    files = {"stage.json": stage.settings, "done.json": record | {"digest": digest(record)}}
    files |= {origin.NOTE: origin.current_code(stage)}
    for name, content in files.items():
        (stage.folder / name).write_text(json.dumps(content, sort_keys=True) + "\n")
    stage.spool.write_text("".join(json.dumps(point) + "\n" for point in points))


def _rows(
    run: PlannedRun, tags: dict[str, str], experiment: int, start: int
) -> Iterator[tuple[str, tuple[object, ...]]]:
    key, end = uuid.uuid4().hex, start + 60_000
    yield "runs", (key, run.id, "LOCAL", "me", "FINISHED", start, end, "active", experiment, "x")
    for name, value in run.params().items():
        yield "params", (name, value, key)
    own = {"selfsup.id": run.id, "selfsup.seed": str(run.run.seed), "selfsup.label": run.label}
    for name, value in (own | tags).items():
        yield "tags", (name, value, key)
    finals = [(f"{stage.space}/top1", stage.result()["top1"], start, key, STEPS, 0) for stage in run.probes.values()]
    curves = [("pretrain/loss", 1 / step, start + step, key, step, 0) for step in range(1, STEPS + 1)]
    for row in (*finals, *curves):
        yield "metrics", row
    for name, value, at, _, step, nan in (*finals, curves[-1]):
        yield "latest_metrics", (name, value, at, step, nan, key)


def main(sizes: list[int]) -> None:
    print(f"| command | {' | '.join(f'{size:,} stages' for size in sizes)} |\n|---|{'---|' * len(sizes)}", flush=True)
    rows: dict[str, list[str]] = {name: [] for name in COMMANDS}
    for size in sizes:
        with tempfile.TemporaryDirectory(dir=Path("build")) as folder:
            home = Path(folder).absolute()
            file = home / "many.yaml"
            file.write_text(yaml.safe_dump(spec(size), sort_keys=False))
            filling = get_context("spawn").Process(target=fill, args=(file, home))
            filling.start()
            filling.join()
            for name, cells in rows.items():
                words = [*name.split(), *([str(file)] if name in ("plan", "status", "report") else [])]
                cells.append(", ".join(f"{seconds(command(words), None, home):.1f}" for _ in range(2)))
                print(size, name, cells[-1], file=sys.stderr, flush=True)
    for name, cells in rows.items():
        print(f"| `{name}` | {' | '.join(cells)} |")


if __name__ == "__main__":
    main([int(size) for size in sys.argv[1:]] or [1_000, 10_000, 100_000])

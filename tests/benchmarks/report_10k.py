"""How long it takes to read a sweep of 10,000 runs from MLflow, the first time and again: numbers, no verdict.

python tests/benchmarks/report_10k.py [RUNS]
"""

import multiprocessing
import random
import sqlite3
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from selfsup.sweeps.report.results import gather
from selfsup.sweeps.spec.study import Arm, Factor, Study
from selfsup.sweeps.spec.sweep import Sweep
from selfsup.track import Tracker

SEEDS, PARAMS, METRICS, POINTS = 5, 40, 20, 50  # a run has 40 parameters, 20 metrics, and a loss curve of 50 points
DRAWN = 500  # runs whose curve is read
BEGAN = 1_700_000_000_000
LOSS = "pretrain/loss"

COLUMNS = {
    "runs": "run_uuid, name, source_type, user_id, status, start_time, end_time, lifecycle_stage, experiment_id, "
    "artifact_uri",
    "params": "key, value, run_uuid",
    "tags": "key, value, run_uuid",
    "metrics": "key, value, timestamp, run_uuid, step, is_nan",
    "latest_metrics": "key, value, timestamp, step, is_nan, run_uuid",
}


def sweep(runs: int) -> Sweep:
    arms = tuple(
        Arm(f"lr={lr}", {"lr": lr}, {"lr": lr} if lr else {}, {seed: f"r{lr}-{seed}" for seed in range(SEEDS)})
        for lr in range(runs // SEEDS)
    )
    factor = Factor("lr", tuple(range(len(arms))), 0, None, False)
    study = Study("mae", "mae", (factor,), (), arms, {}, "")
    return Sweep("big", "", "big.yaml", "d", tuple(range(SEEDS)), ("eval/m0",), (study,))


def fill(store: Path, sweep: Sweep) -> None:
    """As MLflow would, but not through it: a minute instead of an hour."""
    tracker = Tracker(f"sqlite:///{store}").connect()
    one = tracker.open(id="other", name="other", experiment=sweep.name, params={}, tags={})
    tracker.finish(one, "FINISHED")
    experiment = tracker._client.get_run(one).info.experiment_id
    rows: dict[str, list[Sequence[object]]] = {name: [] for name in COLUMNS}
    for number, (seed, id) in enumerate((seed, id) for arm in sweep.studies[0].arms for seed, id in arm.ids.items()):  # noqa: A001
        run, start = uuid.uuid4().hex, BEGAN + 60_000 * number
        rows["runs"].append((run, id, "LOCAL", "me", "FINISHED", start, start + 60_000, "active", int(experiment), "x"))
        rows["params"] += [(f"hyper.p{each}", str(each), run) for each in range(PARAMS)]
        tags = {"selfsup.id": id, "selfsup.seed": seed, "selfsup.commit": "c", "mlflow.runName": id, "selfsup.arm": "a"}
        rows["tags"] += [(name, str(value), run) for name, value in tags.items()]
        finals = [(f"eval/m{each}", random.random(), start, run, 0, 0) for each in range(METRICS - 1)]
        losses = [(LOSS, 1 / step, start + step, run, step, 0) for step in range(1, POINTS + 1)]
        rows["metrics"] += finals + losses
        rows["latest_metrics"] += [(key, v, at, step, nan, run) for key, v, at, run, step, nan in (*finals, losses[-1])]
    insert(store, rows)


def insert(store: Path, rows: Mapping[str, Sequence[Sequence[object]]]) -> None:
    """Add rows to tables of MLflow, in the order of COLUMNS."""
    with closing(sqlite3.connect(store)) as opened, opened:
        for table, new in rows.items():
            marks = ", ".join("?" * len(new[0]))
            opened.executemany(f"INSERT INTO {table} ({COLUMNS[table]}) VALUES ({marks})", new)


@contextmanager
def timed(what: str) -> Iterator[None]:
    before = time.perf_counter()
    yield
    sys.stdout.write(f"{what:<40} {time.perf_counter() - before:7.2f} s\n")
    sys.stdout.flush()


def main(runs: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store, cache, planned = Path(folder, "mlflow.db"), Path(folder, "cache"), sweep(runs)
        with timed(f"filling a store with {runs} runs"):  # elsewhere: what reads them is a fresh process
            filling = multiprocessing.get_context("spawn").Process(target=fill, args=(store, planned))
            filling.start()
            filling.join()
        tracker = Tracker(f"sqlite:///{store}").connect()
        with timed("first"):
            found = gather(tracker, planned, cache=cache)
        assert sum(result.status == "done" for result in found) == runs
        with timed("again"):
            assert gather(tracker, planned, cache=cache) == found
        few = sweep(DRAWN)
        with timed(f"first with {DRAWN} curves"):
            gather(tracker, few, curves=[LOSS], cache=cache)
        with timed(f"again with {DRAWN} curves"):
            assert len(gather(tracker, few, curves=[LOSS], cache=cache)[0].curves[LOSS]) == POINTS
        with timed("open a run anew"):
            run = tracker.open(id="r7-0", name="r7-0", experiment=planned.name, params={}, tags={})
        tracker.metrics(run, {"eval/m0": 7.0}, time=int(time.time() * 1000))
        tracker.finish(run, "FINISHED")
        with timed("after one run was evaluated anew"):
            found = gather(tracker, planned, cache=cache)
        assert next(result for result in found if result.id == "r7-0").metrics["eval/m0"] == 7.0
        kept = sum(path.stat().st_size for path in cache.iterdir())
        sys.stdout.write(f"the store has {store.stat().st_size >> 20} MiB, the cache {kept >> 20}\n")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000)

"""A store of runs made by hand: records, folders of stages, and the runs of an MLflow."""

from collections.abc import Sequence
from pathlib import Path

from selfsup.stage import record, write_json
from selfsup.track import Tracker

KNN, LINEAR = "eval/knn/top1", "eval/linear/top1"


def add_stage(home: Path, key: str, size: int = 1000, *, done: bool = True) -> Path:
    """Make the folder of a stage with a file of so many bytes, and a lock that nobody holds."""
    folder = home / "stages" / key
    folder.mkdir(parents=True)
    (folder / "lock").touch()
    (folder / "weights").write_bytes(bytes(size))
    if done:
        (folder / "done.json").touch()
    return folder


def add_record(home: Path, id: str, stages: Sequence[str], spec: str = "flowers", seed: int = 0) -> None:  # noqa: A002
    path = record(home, id)
    path.parent.mkdir(parents=True, exist_ok=True)
    run = {"method": id.rpartition("-")[0], "seed": seed}
    write_json(path, {"run": run, "spec": spec, "pretrain": stages[0], "stages": list(stages)})


def add_run(
    tracker: Tracker,
    id: str,  # noqa: A002
    status: str = "FINISHED",
    *,
    sweep: str = "flowers",
    study: str = "",
    arm: str = "",
    seed: int = 0,
    knn: float | None = None,
    reason: str = "",
    kind: str = "run",
) -> str:
    """Add a run to MLflow, in a sweep where it has an arm; return MLflow's id."""
    tags = {"selfsup.label": id.rpartition("-")[0], "selfsup.seed": str(seed)}
    tags |= {"selfsup.study": study, "selfsup.arm": arm, "selfsup.kind": kind} if study else {}
    opened = tracker.open(id=id, name=id, experiment=sweep, params={}, tags=tags)
    if knn is not None:
        tracker.metrics(opened, {KNN: knn, "eval/knn/images": 360.0, "eval/linear/lr": 0.1, LINEAR: knn + 5}, time=1)
    if status != "RUNNING":
        tracker.finish(opened, status, reason)  # type: ignore[arg-type]
    return opened

"""MLflow, the only keeper of numbers. One Run is one MLflow run, found again by its tag `selfsup.id`.

Records reach MLflow from a spool, in batches, with the time at which they were made: MLflow keeps one row of an
identical (name, time, step, value), so sending twice is sending once. Nothing here is called from a training step.
"""

import contextlib
import fcntl
import itertools
import json
import logging
import math
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

from selfsup.errors import TrackError
from selfsup.spool import Record, Shipper, Spool, check_names, final, records, tail
from selfsup.store import ENVIRONMENT, default_uri, reach, shown, sqlite_path, ui_command

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Run

__all__ = ["ID", "LABEL", "SEED", "Shipper", "Spool", "Tracker", "default_uri", "records", "tail", "ui_command"]

ID, LABEL, SEED = "selfsup.id", "selfsup.label", "selfsup.seed"  # tags; label and seed make the rows of a table
METRICS, PARAMS = 1000, 100  # the most that MLflow takes in one batch
RECORDS = 200  # sent before it is noted how far sending has come


class Tracker:
    """The writing end of a store, `sqlite:///PATH` or `http(s)://SERVER`. Every failure is a TrackError."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._store = sqlite_path(uri)
        self._one_at_a_time = threading.Lock()  # MLflow looks for a row and then adds it: two threads would both add it
        self._client: MlflowClient

    def connect(self) -> Self:
        """Open the store, making or migrating the schema of a local one; within 10 s fail where there is none."""
        with self._asking("connect"):
            if self._store is None:
                reach(self.uri)
                self._client = _client(self.uri)
                self._client.search_experiments(max_results=1)
            else:
                self._client = _local_client(self.uri, self._store)
        return self

    def open(
        self,
        *,
        id: str,  # noqa: A002 (what a run's id is called everywhere)
        name: str,
        experiment: str,
        params: Mapping[str, object],
        tags: Mapping[str, str],
        datasets: Iterable[tuple[str, str, str]] = (),
    ) -> str:
        """Create or find the MLflow run of a Run, RUNNING; return MLflow's id of it.

        params: written once; one that is there stays as it is. datasets: (name, digest of <= 36 characters, context).
        """
        with self._asking(f"open run {id}"):
            where = self._experiment(experiment)
            found = self._client.search_runs([where], f"tags.`{ID}` = '{id}'", max_results=1)
            run = found[0] if found else self._client.create_run(where, tags={ID: id}, run_name=name)
            self._describe(run, params=params, tags=tags, datasets=datasets)
            self._client.update_run(run.info.run_id, status="RUNNING")
            return str(run.info.run_id)

    def ship(self, run_id: str, path: Path, *, prefix: str = "") -> int:
        """Send the committed records of a spool that were not sent before; return how many numbers went.

        What was sent is noted in `<path>.sent`; without that file everything goes again, to no effect.
        """
        total = 0
        note = path.with_name(path.name + ".sent")
        with self._asking(f"send {path.name}"):
            left = final(path, start=_sent(note, run_id, path))
            while batch := list(itertools.islice(left, RECORDS)):
                total += self._send(run_id, [record for record, _ in batch], prefix=prefix)
                note.write_text(json.dumps({"run": run_id, "sent": batch[-1][1]}))
        return total

    def metrics(self, run_id: str, values: Mapping[str, float], *, step: int = 0, time: int) -> None:
        """Record values now. time: milliseconds since 1970 of the result itself, so that recording twice is once."""
        check_names(values)
        with self._asking("record metrics"):
            self._send(run_id, [Record(step, time, values)])

    def artifact(self, run_id: str, path: Path, folder: str) -> None:
        with self._asking(f"store {path.name}"):
            self._client.log_artifact(run_id, str(path), folder)

    def finish(self, run_id: str, status: Literal["FINISHED", "FAILED", "KILLED"]) -> None:
        with self._asking("finish the run"):
            self._client.set_terminated(run_id, status)

    def runs(self, experiment: str) -> "list[Run]":
        """Every run of ours in an experiment, oldest first; none where the experiment does not exist."""
        found: list[Run] = []
        with self._asking(f"read experiment {experiment!r}"):
            where = self._client.get_experiment_by_name(experiment)
            token: str | None = ""
            while where and token is not None:
                page = self._client.search_runs(
                    [where.experiment_id],
                    f"tags.`{ID}` LIKE '%'",
                    order_by=["start_time ASC"],
                    page_token=token or None,
                )
                found.extend(page)
                token = page.token or None
        return found

    def _experiment(self, name: str) -> str:
        from mlflow.exceptions import MlflowException

        place = None if self._store is None else (self._store.parent / "artifacts").as_uri()
        found = self._client.get_experiment_by_name(name)
        if found is None:
            try:
                return str(self._client.create_experiment(name, artifact_location=place))
            except MlflowException as error:  # another process was faster
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
                found = self._client.get_experiment_by_name(name)
                assert found is not None
        if found.lifecycle_stage == "deleted":
            remedy = f"rename the spec, or run: mlflow experiments restore -x {found.experiment_id}"
            raise TrackError(f"MLflow at {shown(self.uri)}: experiment {name!r} was deleted there; {remedy}")
        return str(found.experiment_id)

    def _describe(
        self,
        run: "Run",
        *,
        params: Mapping[str, object],
        tags: Mapping[str, str],
        datasets: Iterable[tuple[str, str, str]],
    ) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag, Param, RunTag

        check_names(params)
        run_id = run.info.run_id
        new = [Param(key, str(value)) for key, value in params.items() if key not in run.data.params]
        for start in range(0, len(new), PARAMS):
            self._client.log_batch(run_id, params=new[start : start + PARAMS], synchronous=True)
        self._client.log_batch(run_id, tags=[RunTag(*tag) for tag in tags.items()], synchronous=True)
        inputs = [
            DatasetInput(Dataset(name, digest, "local", name), [InputTag("mlflow.data.context", context)])
            for name, digest, context in datasets
        ]
        if inputs:
            self._client.log_inputs(run_id, inputs)

    def _send(self, run_id: str, group: Iterable[Record], *, prefix: str = "") -> int:
        found = [metric for record in group for metric in _metrics(record, prefix=prefix)]
        for start in range(0, len(found), METRICS):
            self._client.log_batch(run_id, metrics=found[start : start + METRICS], synchronous=True)
        return len(found)

    @contextlib.contextmanager
    def _asking(self, what: str) -> Iterator[None]:
        _load_mlflow()
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError

        try:
            with self._one_at_a_time:
                yield
        except (MlflowException, SQLAlchemyError, HTTPException, OSError) as error:
            reason = str(error).partition("\n")[0]
            raise TrackError(f"MLflow at {shown(self.uri)}: cannot {what}: {reason}") from error


def _metrics(record: Record, *, prefix: str) -> "Iterator[Metric]":
    """Finite values only: MLflow would store infinity as 1.8e308. How many were not is a metric itself."""
    from mlflow.entities import Metric

    finite = {name: value for name, value in record.values.items() if math.isfinite(value)}
    lost = len(record.values) - len(finite)
    for name, value in (finite | {"nonfinite": lost} if lost else finite).items():
        yield Metric(prefix + name, value, record.time, record.step)


def _sent(note: Path, run_id: str, path: Path) -> int:
    """How many bytes of a spool have reached this run; 0 where the note is missing, torn or another run's."""
    try:
        found = json.loads(note.read_text())
        return int(found["sent"]) if found["run"] == run_id and found["sent"] <= path.stat().st_size else 0
    except (OSError, ValueError, KeyError):
        return 0


def _load_mlflow() -> None:
    """Import MLflow late, since it takes seconds, and after the environment that it reads is set."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    import mlflow

    assert mlflow
    for name in ("mlflow.store.db.utils", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)


def _client(uri: str) -> "MlflowClient":
    from mlflow import MlflowClient

    return MlflowClient(uri, registry_uri=uri)


def _local_client(uri: str, store: Path) -> "MlflowClient":
    """Two processes that open a fresh or an older SQLite store at once break it, so only one at a time may.

    MLflow makes a schema that is missing, and adds tables to an older one, when it opens a store; a store that lacks
    only columns it refuses.
    """
    from mlflow.exceptions import MlflowException

    store.parent.mkdir(parents=True, exist_ok=True)
    with store.with_name(store.name + ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            return _client(uri)
        except MlflowException:
            _migrate(uri, store)
            return _client(uri)


def _migrate(uri: str, store: Path) -> None:
    backup = store.with_name(store.name + ".backup")
    shutil.copyfile(store, backup)
    argv = [sys.executable, "-m", "mlflow", "db", "upgrade", uri]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise TrackError(f"MLflow at {uri}: its schema cannot be migrated (a copy of it is {backup}): {reason}")

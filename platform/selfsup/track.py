"""MLflow, the only keeper of numbers. One Run is one MLflow run, found again by its tag `selfsup.id`.

Records reach MLflow from a spool, in batches, with the time at which they were made: MLflow keeps one row of an
identical (name, time, step, value), so sending twice is sending once. Nothing here is called from a training step.
"""

import contextlib
import itertools
import json
import math
import sqlite3
import tempfile
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

from selfsup import whole
from selfsup.errors import TrackError
from selfsup.metrics_log import Record, check_names, final, sent
from selfsup.mlflow_store import connect, load_mlflow, mlflow_command, reach, sqlite_path
from selfsup.redact import redacted

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment, Metric, Run

ID, LABEL, SEED = "selfsup.id", "selfsup.label", "selfsup.seed"  # tags; label and seed make the rows of a table
REASON = "selfsup.reason"  # why a run failed or was stopped
DATA = "selfsup.data"  # .train, .val: the digest of what it was given
CODE, MODULES, ACCEPTED = "selfsup.code", "selfsup.modules", "selfsup.accepted"  # what made it, and counts all the same
PARENT = "mlflow.parentRunId"  # MLflow's own tag
METRICS, PARAMS = 1000, 100  # the most that MLflow takes in one batch
Used = tuple[str, str, str]  # a data set: name, digest of <= 36 characters, context
DAMAGED = ("database disk image is malformed", "file is not a database")  # what SQLite says of a file
REFILLED = "then the same command makes a new one of what is kept beside it, in the folder stages"
RECORDS = 200  # sent before it is noted how far sending has come


class Tracker:
    """A store, `sqlite:///PATH` or `http(s)://SERVER`. Every failure is a TrackError."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._store = sqlite_path(uri)
        self._one_at_a_time = threading.Lock()  # MLflow looks for a row and then adds it: two threads would both add it
        self._client: MlflowClient

    def connect(self) -> Self:
        """Open the store, making or migrating the schema of a local one; within 10 s fail where there is none."""
        with self._asking("connect"):
            self._client = connect(self.uri)
        return self

    def reachable(self) -> bool:
        """Whether a server answers now. A local store always does."""
        try:
            if self._store is None:
                reach(self.uri)
        except OSError:
            return False
        return True

    def open(
        self,
        *,
        id: str,  # noqa: A002 (what a run's id is called everywhere)
        name: str,
        experiment: str,
        params: Mapping[str, object],
        tags: Mapping[str, str],
        datasets: Sequence[Used] = (),
        parent: str | None = None,
    ) -> str:
        """Create or find the MLflow run of a Run, RUNNING; return MLflow's id of it.

        params: written once; one that is there stays as it is. parent: MLflow's id of the run above it.
        """
        tags = dict(tags) | {f"{DATA}.{context}": digest for _, digest, context in datasets}
        tags |= {PARENT: parent} if parent else {}
        with self._asking(f"open run {id}"):
            where = self._experiment(experiment)
            found = self._client.search_runs([where], f"tags.`{ID}` = '{id}'", max_results=1)
            run = found[0] if found else self._client.create_run(where, tags={ID: id}, run_name=name)
            self._describe(run, params, tags, datasets)
            self._client.update_run(run.info.run_id, status="RUNNING")
            return str(run.info.run_id)

    def ship(self, run_id: str, path: Path, *, prefix: str = "") -> int:
        """Send the committed records of a spool that were not sent before; return how many numbers went.

        What was sent is noted in `<path>.sent`; without that file everything goes again, to no effect.
        """
        total = 0
        note = path.with_name(path.name + ".sent")
        with self._asking(f"send {path.name}"):
            left = final(path, start=sent(note, run_id, path))
            while batch := list(itertools.islice(left, RECORDS)):
                total += self._send(run_id, [record for record, _ in batch], prefix=prefix)
                whole.write(note, json.dumps({"run": run_id, "sent": batch[-1][1]}))
        return total

    def metrics(
        self, run_id: str, values: Mapping[str, float], *, step: int = 0, time: int, model: str | None = None
    ) -> None:
        """Record values now. time: milliseconds since 1970 of the result itself, so that recording twice is once.

        model: the id of the logged model that they are also of.
        """
        check_names(values)
        with self._asking("record metrics"):
            self._send(run_id, [Record(step, time, values)], model=model)

    def model(self, run_id: str, *, name: str, path: str, digest: str) -> str:
        """Note where the encoder of a run lies, as a logged model without files; return its id. Twice is once."""
        from mlflow.entities import LoggedModelOutput

        tags = {"selfsup.path": path, "selfsup.digest": digest}
        with self._asking(f"note model {name}"):
            run = self._client.get_run(run_id)
            where = run.info.experiment_id
            same = f"source_run_id = '{run_id}' AND name = '{name}' AND tags.`selfsup.digest` = '{digest}'"
            known = self._client.search_logged_models([where], same, max_results=1)
            model = known[0] if known else self._client.create_logged_model(where, name, run_id, tags)
            noted = run.outputs.model_outputs if run.outputs else []
            if model.model_id not in [each.model_id for each in noted]:  # MLflow refuses the second time
                self._client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=0)])
            self._client.finalize_logged_model(model.model_id, "READY")
            return str(model.model_id)

    def artifact(self, run_id: str, path: Path, folder: str) -> None:
        with self._asking(f"store {path.name}"):
            self._client.log_artifact(run_id, str(path), folder)

    def content(self, run_id: str, name: str, content: bytes, folder: str) -> None:
        """Store an artifact that is no file yet; one of that name is replaced."""
        with tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch, name)
            path.write_bytes(content)
            self.artifact(run_id, path, folder)

    def fetch(self, run_id: str, path: str) -> bytes | None:
        """An artifact; None where the run has none of that path."""
        folder, _, _ = path.rpartition("/")
        with self._asking(f"fetch {path}"):
            if path not in [found.path for found in self._client.list_artifacts(run_id, folder)]:
                return None
            with tempfile.TemporaryDirectory() as scratch:
                return Path(self._client.download_artifacts(run_id, path, scratch)).read_bytes()

    def finish(self, run_id: str, status: Literal["FINISHED", "FAILED", "KILLED"], reason: str = "") -> None:
        """reason: why it failed or was stopped; gone once the run is opened again."""
        with self._asking("finish the run"):
            if reason:
                self._client.set_tag(run_id, REASON, reason)
            self._client.set_terminated(run_id, status)

    def experiment(self, name: str) -> "Experiment | None":
        with self._asking(f"read experiment {name!r}"):
            return self._client.get_experiment_by_name(name)

    def runs(self, experiment: str, where: str = f"tags.`{ID}` LIKE '%'", *, deleted: bool = False) -> "list[Run]":
        """The runs of an experiment that fit a filter of MLflow, oldest first; none where it does not exist."""
        from mlflow.entities import ViewType

        found: list[Run] = []
        with self._asking(f"read experiment {experiment!r}"):
            held = self._client.get_experiment_by_name(experiment)
            token: str | None = ""
            while held and token is not None:
                page = self._client.search_runs(
                    [held.experiment_id],
                    where,
                    ViewType.DELETED_ONLY if deleted else ViewType.ACTIVE_ONLY,
                    order_by=["start_time ASC"],
                    page_token=token or None,
                )
                found.extend(page)
                token = page.token or None
        return found

    def everywhere(self, where: str) -> "list[Run]":
        """The runs of any experiment that fit a filter of MLflow, oldest first."""
        with self._asking("read runs"):
            held = [found.experiment_id for found in self._client.search_experiments()]
            return list(self._client.search_runs(held, where, order_by=["start_time ASC"]))

    def history(self, run_id: str, name: str) -> list[tuple[int, float]]:
        """(step, value) of a metric in order of steps; where one was recorded again, the newer value."""
        with self._asking(f"read {name}"):
            found = self._client.get_metric_history(run_id, name)
        newest = {each.step: each.value for each in sorted(found, key=lambda each: each.timestamp)}
        return sorted(newest.items())

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
            raise TrackError(
                f"MLflow at {redacted(self.uri)}: experiment {name!r} was deleted there; rename the spec, or run "
                f"`{mlflow_command(self.uri, 'experiments', 'restore', '-x', str(found.experiment_id))}`"
            )
        return str(found.experiment_id)

    def _describe(
        self, run: "Run", params: Mapping[str, object], tags: Mapping[str, str], datasets: Sequence[Used]
    ) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag, Param, RunTag

        check_names(params)
        run_id = run.info.run_id
        new = [Param(key, str(value)) for key, value in params.items() if key not in run.data.params]
        for start in range(0, len(new), PARAMS):
            self._client.log_batch(run_id, params=new[start : start + PARAMS], synchronous=True)
        self._client.log_batch(run_id, tags=[RunTag(*tag) for tag in tags.items()], synchronous=True)
        if REASON in run.data.tags:
            self._client.delete_tag(run_id, REASON)
        inputs = [
            DatasetInput(Dataset(name, digest, "local", name), [InputTag("mlflow.data.context", context)])
            for name, digest, context in datasets
        ]
        if inputs:
            self._client.log_inputs(run_id, inputs)

    def _send(self, run_id: str, group: Iterable[Record], *, prefix: str = "", model: str | None = None) -> int:
        found = [metric for record in group for metric in _metrics(record, prefix=prefix, model=model)]
        for start in range(0, len(found), METRICS):
            self._client.log_batch(run_id, metrics=found[start : start + METRICS], synchronous=True)
        return len(found)

    @contextlib.contextmanager
    def _asking(self, what: str) -> Iterator[None]:
        load_mlflow()
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError

        try:
            with self._one_at_a_time:
                yield
        except (MlflowException, SQLAlchemyError, sqlite3.DatabaseError, HTTPException, OSError) as error:
            reason = str(error).partition("\n")[0]
            if self._store and (signs := [sign for sign in DAMAGED if sign in str(error)]):
                reason = f"{signs[0]}. Put a copy of it back, or move it away: {REFILLED}"
            raise TrackError(f"MLflow at {redacted(self.uri)}: cannot {what}: {reason}") from error


def _metrics(record: Record, *, prefix: str, model: str | None) -> "Iterator[Metric]":
    """Finite values only: MLflow would store infinity as 1.8e308. How many were not is a metric itself."""
    from mlflow.entities import Metric

    finite = {name: value for name, value in record.values.items() if math.isfinite(value)}
    lost = len(record.values) - len(finite)
    for name, value in (finite | {"nonfinite": lost} if lost else finite).items():
        yield Metric(prefix + name, value, record.time, record.step, model_id=model)

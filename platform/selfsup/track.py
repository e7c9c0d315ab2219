"""MLflow, the store of all metrics. A run of selfsup is an MLflow run, found again by its tag `selfsup.id`.

Records are sent from metrics logs, in batches, with their own time. MLflow keeps one row of an identical (name, time,
step, value), so sending is idempotent. Training steps call nothing here.
"""

import contextlib
import itertools
import json
import sqlite3
import tempfile
import threading
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from selfsup import whole
from selfsup.errors import TrackError
from selfsup.metric_names import former_name
from selfsup.metrics_log import Record, check_names, committed_records, sent_bytes
from selfsup.mlflow_store import check_reachable, connect, default_uri, home, load_mlflow, mlflow_command, sqlite_path
from selfsup.redact import redacted

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment, Run

ID, LABEL, SEED = "selfsup.id", "selfsup.label", "selfsup.seed"  # tags; label and seed make the rows of a table
HAS_ID = f"tags.`{ID}` LIKE '%'"  # a filter of MLflow: all runs of ours
REASON, DATA = "selfsup.reason", "selfsup.data"  # of a failure or stop; .train, .val: the digest of the data set
COMMIT, HARDWARE = "selfsup.commit", "selfsup.hardware"  # what made a run
CODE, MODULES, ACCEPTED = "selfsup.code", "selfsup.modules", "selfsup.accepted"  # code of a run, and accepted results
PARENT = "mlflow.parentRunId"  # MLflow's own tag
TRAINING = {"mlflow.experimentKind": "custom_model_development"}  # else MLflow's UI expects agents
ACTIVE, DELETED, ALL = 1, 2, 3  # MLflow's ViewType, which takes seconds to import
MAX_METRICS, MAX_PARAMS = 1000, 100  # of one batch, by MLflow's limits
DatasetRecord = tuple[str, str, str]  # name, digest of <= 36 characters, context
DAMAGED = ("database disk image is malformed", "file is not a database")  # messages of SQLite about a damaged file
REFILLED = "then the same command makes a new one from the results in the folder stages beside it"
RECORDS = 200  # between notes of how much of a log was sent


class Tracker:
    """A client of a store, `sqlite:///PATH` or `http(s)://SERVER`. All its failures raise TrackError."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._store = sqlite_path(uri)
        self._lock = threading.Lock()  # MLflow checks for a row before it adds it: two threads would both add it

    @cached_property
    def _client(self) -> "MlflowClient":
        return connect(self.uri)

    def connect(self) -> Self:
        """Open the store now, not when it is first needed: create or migrate the schema of a local one.

        Fails within 10 s without a server.
        """
        with self._errors("connect"):
            assert self._client
        return self

    def reachable(self) -> bool:
        """Return whether the server answers now; a local store always does."""
        with contextlib.suppress(OSError):
            if self._store is None:
                check_reachable(self.uri)
            return True
        return False

    def open(
        self,
        *,
        id: str,  # noqa: A002 (what a run's id is called everywhere)
        name: str,
        experiment: str,
        params: Mapping[str, object],
        tags: Mapping[str, str],
        datasets: Sequence[DatasetRecord] = (),
        parent: str | None = None,
    ) -> str:
        """Create or find the MLflow run with this id, set it RUNNING, and return MLflow's id of it.

        params: those that exist already stay. parent: MLflow's id of the parent run.
        """
        tags = dict(tags) | {f"{DATA}.{context}": digest for _, digest, context in datasets}
        tags |= {PARENT: parent} if parent else {}
        with self._errors(f"open run {id}"):
            experiment_id = self._experiment(experiment)
            runs = self._client.search_runs([experiment_id], f"tags.`{ID}` = '{id}'", max_results=1)
            run = runs[0] if runs else self._client.create_run(experiment_id, tags={ID: id}, run_name=name)
            self._describe(run, params, tags, datasets)
            self._client.update_run(run.info.run_id, status="RUNNING")
            return str(run.info.run_id)

    def ship(self, run_id: str, path: Path, *, prefixes: Sequence[str] = ("",)) -> int:
        """Send the new committed records of a metrics log, under names with each prefix; return how many metrics.

        Progress is noted in `<path>.sent`; without that file everything is sent again, without effect.
        """
        total, note = 0, path.with_name(path.name + ".sent")
        with self._errors(f"send {path.name}"):
            unsent = committed_records(path, start=sent_bytes(note, run_id, path))
            while batch := list(itertools.islice(unsent, RECORDS)):
                total += self._send(run_id, [record for record, _ in batch], prefixes)
                whole.write(note, json.dumps({"run": run_id, "sent": batch[-1][1]}))
        return total

    def metrics(
        self, run_id: str, values: Mapping[str, float], *, step: int = 0, time: int, model: str | None = None
    ) -> None:
        """Record values of one step; idempotent. time: of the result, in milliseconds since 1970.

        model: the id of the logged model that they also belong to.
        """
        check_names(values)
        with self._errors("record metrics"):
            self._send(run_id, [Record(step, time, values)], [""], model)

    def model(self, run_id: str, *, name: str, path: str, digest: str) -> str:
        """Record the encoder of a run as a logged model with its path, without files; return its id. Idempotent."""
        from mlflow.entities import LoggedModelOutput

        tags = {"selfsup.path": path, "selfsup.digest": digest}
        with self._errors(f"note model {name}"):
            experiment_id = (run := self._client.get_run(run_id)).info.experiment_id
            same = f"source_run_id = '{run_id}' AND name = '{name}' AND tags.`selfsup.digest` = '{digest}'"
            models = self._client.search_logged_models([experiment_id], same, max_results=1)
            model = models[0] if models else self._client.create_logged_model(experiment_id, name, run_id, tags)
            outputs = run.outputs.model_outputs if run.outputs else []
            if model.model_id not in [output.model_id for output in outputs]:  # MLflow rejects a second one
                self._client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=0)])
            self._client.finalize_logged_model(model.model_id, "READY")
            return str(model.model_id)

    def upload_model(self, model: str, module: Any, samples: Any, requirements: Sequence[str]) -> None:
        """Store a torch module as the files of a logged model: as a graph, which is loaded without selfsup.

        samples: (B, ...) of NumPy, which it takes for any B. requirements: what loading it needs, as pip has it.
        """
        with self._errors(f"store model {model}"), tempfile.TemporaryDirectory() as scratch:
            folder, form = Path(scratch, "model"), {"serialization_format": "pt2"}
            with warnings.catch_warnings(action="ignore"):  # MLflow warns of types of its own
                import mlflow.pytorch

                mlflow.pytorch.save_model(
                    module, folder, input_example=samples, pip_requirements=list(requirements), **form
                )
            self._client.log_model_artifacts(model, str(folder))

    def artifact(self, run_id: str, path: Path, folder: str) -> None:
        with self._errors(f"store {path.name}"):
            self._client.log_artifact(run_id, str(path), folder)

    def content(self, run_id: str, name: str, content: bytes, folder: str) -> None:
        """Store bytes as an artifact; one of that name is replaced."""
        with tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch, name)
            path.write_bytes(content)
            self.artifact(run_id, path, folder)

    def fetch(self, run_id: str, path: str) -> bytes | None:
        """Return the content of an artifact; None where the run has none of that path."""
        folder, _, _ = path.rpartition("/")
        with self._errors(f"fetch {path}"):
            if path not in [artifact.path for artifact in self._client.list_artifacts(run_id, folder)]:
                return None
            with tempfile.TemporaryDirectory() as scratch:
                return Path(self._client.download_artifacts(run_id, path, scratch)).read_bytes()

    def finish(self, run_id: str, status: Literal["FINISHED", "FAILED", "KILLED"], reason: str = "") -> None:
        """Set the final status of a run. reason: of a failure or stop; removed when the run is opened again."""
        with self._errors("finish the run"):
            if reason:
                self._client.set_tag(run_id, REASON, reason)
            self._client.set_terminated(run_id, status)

    def experiment(self, name: str) -> "Experiment | None":
        with self._errors(f"read experiment {name!r}"):
            return self._client.get_experiment_by_name(name)

    def tag_experiment(self, experiment: "Experiment", tags: Mapping[str, str]) -> None:
        """Set those tags of an experiment that it does not have yet."""
        with self._errors(f"tag experiment {experiment.name!r}"):
            for key, value in tags.items() - experiment.tags.items():
                self._client.set_experiment_tag(experiment.experiment_id, key, value)

    def note(self, run_id: str, text: str) -> None:
        """Set the description of a run, in Markdown."""
        with self._errors("describe the run"):
            self._client.set_tag(run_id, "mlflow.note.content", text)

    def runs(self, experiment: str, where: str = HAS_ID, *, deleted: bool = False) -> "list[Run]":
        """Return the runs of an experiment that match an MLflow filter, oldest first; [] where it does not exist."""
        with self._errors(f"read experiment {experiment!r}"):
            entity = self._client.get_experiment_by_name(experiment)
            return list(self._pages([entity.experiment_id], where, deleted=deleted)) if entity else []

    def experiments(self) -> "list[Experiment]":
        with self._errors("read experiments"):
            return list(self._client.search_experiments())

    def _pages(self, experiments: Sequence[str], where: str, *, deleted: bool) -> "Iterator[Run]":
        """Yield the runs of experiments, by MLflow's ids, that match a filter, oldest first."""
        page: Any = None
        while page is None or page.token:
            view, order, token = DELETED if deleted else ACTIVE, ["start_time ASC"], page and page.token
            page = self._client.search_runs(list(experiments), where, view, order_by=order, page_token=token)
            yield from page

    def search_runs(self, where: str = HAS_ID, *, deleted: bool = False) -> "list[Run]":
        """Return the runs of all experiments that match an MLflow filter, oldest first; or those that were deleted."""
        with self._errors("read runs"):
            experiments = self._client.search_experiments(ALL if deleted else ACTIVE)
            return list(self._pages([entity.experiment_id for entity in experiments], where, deleted=deleted))

    def history(self, run_id: str, name: str) -> list[tuple[int, float]]:
        """Return (step, value) of a metric, under its names, by step; the newer value of a step recorded twice."""
        with self._errors(f"read {name}"):
            names = dict.fromkeys((former_name(name), name))
            metrics = [metric for alias in names for metric in self._client.get_metric_history(run_id, alias)]
        newest = {metric.step: metric.value for metric in sorted(metrics, key=lambda metric: metric.timestamp)}
        return sorted(newest.items())

    def _experiment(self, name: str) -> str:
        from mlflow.exceptions import MlflowException

        location = None if self._store is None else (self._store.parent / "artifacts").as_uri()
        experiment = self._client.get_experiment_by_name(name)
        if experiment is None:
            try:
                return str(self._client.create_experiment(name, location, TRAINING))
            except MlflowException as error:  # another process was faster
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
                experiment = self._client.get_experiment_by_name(name)
                assert experiment is not None
        if experiment.lifecycle_stage == "deleted":
            raise TrackError(
                f"MLflow at {redacted(self.uri)}: experiment {name!r} was deleted there; rename the spec, or run "
                f"`{mlflow_command(self.uri, 'experiments', 'restore', '-x', str(experiment.experiment_id))}`"
            )
        return str(experiment.experiment_id)

    def _describe(
        self, run: "Run", params: Mapping[str, object], tags: Mapping[str, str], datasets: Sequence[DatasetRecord]
    ) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag, Param, RunTag

        check_names(params)
        run_id = run.info.run_id
        new = [Param(key, str(value)) for key, value in params.items() if key not in run.data.params]
        for start in range(0, len(new), MAX_PARAMS):
            self._client.log_batch(run_id, params=new[start : start + MAX_PARAMS], synchronous=True)
        self._client.log_batch(run_id, tags=[RunTag(*tag) for tag in tags.items()], synchronous=True)
        if REASON in run.data.tags:
            self._client.delete_tag(run_id, REASON)
        inputs = [
            DatasetInput(Dataset(name, digest, "local", name), [InputTag("mlflow.data.context", context)])
            for name, digest, context in datasets
        ]
        if inputs:
            self._client.log_inputs(run_id, inputs)

    def _send(self, run_id: str, group: Iterable[Record], prefixes: Sequence[str], model: str | None = None) -> int:
        from mlflow.entities import Metric

        metrics = [
            Metric(prefix + name, value, record.time, record.step, model_id=model)
            for record in group
            for (name, value), prefix in itertools.product(record.finite().items(), prefixes)
        ]
        for start in range(0, len(metrics), MAX_METRICS):
            self._client.log_batch(run_id, metrics=metrics[start : start + MAX_METRICS], synchronous=True)
        return len(metrics)

    @contextlib.contextmanager
    def _errors(self, action: str) -> Iterator[None]:
        """Hold the lock, and raise errors of MLflow, the database or the network as TrackError."""
        load_mlflow()
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError

        try:
            with self._lock:
                yield
        except (MlflowException, SQLAlchemyError, sqlite3.DatabaseError, HTTPException, OSError) as error:
            reason = str(error).partition("\n")[0]
            if self._store and (texts := [text for text in DAMAGED if text in str(error)]):
                reason = f"{texts[0]}. Put a copy of it back, or move it away: {REFILLED}"
            raise TrackError(f"MLflow at {redacted(self.uri)}: cannot {action}: {reason}") from error


def store() -> Tracker:
    """Connect to the MLflow in use. Raises TrackError."""
    return Tracker(default_uri(home())).connect()

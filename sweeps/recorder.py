"""The record of runs in MLflow: their curves while they train, their results, why they failed."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from time import monotonic, sleep, time_ns

from selfsup import failures, origin
from selfsup.errors import TrackError
from selfsup.failures import Failure
from selfsup.homes import shown
from selfsup.pipelines.planned import PlannedRun
from selfsup.pipelines.stages.curves import logs
from selfsup.pipelines.stages.runner import commit
from selfsup.progress import say
from selfsup.shipper import Shipper
from selfsup.stage import digest
from selfsup.sweeps.averages import averages, mean_curves
from selfsup.sweeps.tags import ARM, KIND, STUDY, TRIAL
from selfsup.track import ACCEPTED, CODE, COMMIT, HARDWARE, ID, LABEL, MODULES, REASON, SEED, Tracker

FLUSH_SECONDS = 60.0  # for what is left of a run that ends
PATIENCE = 60.0  # with a server that is away when all runs have ended


class Recorder:
    """The only writer of runs. While MLflow is away the numbers wait in their files, and nothing else waits.

    tags, parents: the place of a run in a sweep, by its id, from `mlflow_tree`; looked up when a run is opened.
    """

    def __init__(
        self,
        tracker: Tracker,
        tags: Mapping[str, Mapping[str, str]] | None = None,
        parents: Mapping[str, str] | None = None,
    ) -> None:
        self._tracker = tracker
        self._tags = {} if tags is None else tags
        self._parents = {} if parents is None else parents
        self._live: dict[str, tuple[str, Shipper]] = {}

    def placed(self, planned: PlannedRun) -> PlannedRun:
        """Return a run that knows its study and its arm."""
        place = self._tags.get(planned.id, {})
        return replace(planned, study=place.get(STUDY, ""), arm=place.get(ARM, ""))

    def begin(self, planned: PlannedRun) -> None:
        """Send the curve of a run from now on, as it grows."""
        if planned.id in self._live:
            return
        if not self._tracker.reachable():
            say(f"{planned.id}: MLflow does not answer; it runs all the same")
            return
        try:
            run = self._open(planned)
        except TrackError as error:
            say(f"{planned.id}: {error}; it runs all the same")
            return
        shipper = Shipper(self._tracker)
        for log, prefixes in _logs(planned).items():
            shipper.add(run, log, prefixes=prefixes)
        shipper.start()
        self._live[planned.id] = run, shipper

    def end(self, planned: PlannedRun, failure: Failure | None, stopped: str = "") -> None:
        """Send the rest of a run, and how it ended. stopped: the reason, where it was stopped on purpose."""
        if planned.id not in self._live:
            return
        run, shipper = self._live.pop(planned.id)
        there = self._tracker.reachable()
        shipper.close(FLUSH_SECONDS if there else 0.0)
        if not there:
            say(f"{planned.id}: MLflow does not answer; the numbers are kept, and will be sent")
            return
        try:
            self.publish(planned)
            if failure:
                self._tracker.finish(run, "FAILED", failure.reason)
            elif stopped:
                self._tracker.finish(run, "KILLED", stopped)
        except TrackError as error:
            say(f"{planned.id}: {error}; the numbers are kept, and will be sent")

    def interrupted(self) -> None:
        """Mark live runs as killed; the same command continues them."""
        for run, shipper in self._live.values():
            shipper.close(1.0)
            with suppress(TrackError):
                self._tracker.finish(run, "KILLED")
        self._live.clear()

    def catch_up(self, runs: Sequence[PlannedRun]) -> None:
        """Publish what ended unrecorded: MLflow was away, or other work shares the stages.

        Waits for a server that is away. Raises TrackError where it stays away.
        """
        deadline = monotonic() + PATIENCE
        while not self._tracker.reachable() and monotonic() < deadline:
            sleep(1.0)
        names = dict.fromkeys(planned.spec for planned in runs)
        recorded = {run.data.tags[ID]: run for name in names for run in self._tracker.runs(name)}
        for planned in runs:
            run, failure = recorded.get(planned.id), failures.read(planned.failure)
            if planned.done and not (run and run.info.status == "FINISHED" and _has_means(run.data.metrics, planned)):
                self.publish(planned)
            elif failure and not planned.done and not (run and REASON in run.data.tags):
                self._tracker.finish(self._open(planned), "FAILED", failure.reason)

    def publish(self, planned: PlannedRun) -> None:
        """Record all results of a run from its stages' folders. Idempotent. Raises TrackError."""
        run = self._open(planned)
        for log, prefixes in _logs(planned).items():
            self._tracker.ship(run, log, prefixes=prefixes)
        evaluations = {probe.key for probe in planned.probes.values()} if planned.pretrain else set()
        for stage in planned.stages:
            if stage.done:
                values = {f"{stage.space}/{name}": value for name, value in stage.result().items()}
                step = planned.steps if stage.key in evaluations else 0  # the last of a learning curve
                self._tracker.metrics(run, values, step=step, time=stage.time)
                for path in stage.artifacts():
                    self._tracker.artifact(run, path, stage.name or stage.kind)
        self._average(run, planned)
        if planned.done:
            if planned.pretrain:
                encoder = planned.pretrain.folder / "encoder.safetensors"
                self._tracker.model(run, name=planned.id, path=shown(encoder), digest=planned.pretrain.key)
            self._tracker.finish(run, "FINISHED")

    def _average(self, run: str, planned: PlannedRun) -> None:
        """Record means of evaluations, along training and at its end.

        What they are of may change while the run stays: then MLflow takes the newer.
        """
        last, curves = planned.steps if planned.pretrain else 0, mean_curves(planned)
        for name, value in averages(planned).items():
            curves[name] = curves.get(name, {}) | {last: value}
        for name, curve in curves.items():
            known = dict(self._tracker.history(run, name))
            for step in (step for step, value in curve.items() if known.get(step) != value):
                self._tracker.metrics(run, {name: curve[step]}, step=step, time=time_ns() // 1_000_000)

    def _open(self, planned: PlannedRun) -> str:
        place = self._tags.get(planned.id, {})
        named = f"{place.get(ARM, planned.label)}, seed {planned.run.seed}"
        return self._tracker.open(
            id=planned.id,
            name=planned.id if place.get(KIND) == TRIAL else named,
            experiment=planned.spec,
            params=planned.params(),
            tags={
                LABEL: planned.label,
                SEED: str(planned.run.seed),
                "selfsup.method": planned.method,
                COMMIT: commit(),
                **_hardware(planned),
                **_code(planned),
                **place,
            },
            datasets=[(Path(data.root).name, data.digest, use) for use, data in planned.data.items()],
            parent=self._parents.get(planned.id),
        )


def _has_means(recorded: Mapping[str, float], planned: PlannedRun) -> bool:
    """Return whether the means of a run's evaluations are recorded as its spec asks for them now."""
    return all(recorded.get(name) == value for name, value in averages(planned).items())


def _logs(planned: PlannedRun) -> dict[Path, tuple[str, ...]]:
    """Return the logs of a run and of the trainings that evaluations score, each with the prefixes of its metrics.

    There are several where evaluations of several names are the same work, which is done once.
    """
    tuned = [replace(run.pretrain, name=name) for name, run in planned.tuned.items() if run.pretrain]
    prefixes: dict[Path, tuple[str, ...]] = {}
    for path, prefix in (*logs(planned), *((stage.spool, f"{stage.space}/") for stage in tuned)):
        prefixes[path] = (*prefixes.get(path, ()), prefix)
    return prefixes


def _code(planned: PlannedRun) -> dict[str, str]:
    """Return the code of a run as far as it is noted: each module with its digest, and a digest of them all."""
    origins = [made for stage in planned.stages if stage.begun and (made := origin.recorded_code(stage))]
    modules = " ".join(sorted({f"{name}:{mark}" for made in origins for name, mark in made["modules"].items()}))
    counted = [stage.kind for stage in planned.stages if origin.accepted_code(stage)]
    tags = {CODE: digest(modules), MODULES: modules} if modules else {}
    return tags | ({ACCEPTED: ", ".join(counted)} if counted else {})


def _hardware(planned: PlannedRun) -> dict[str, str]:
    """Return the hardware that a run trained on, once it is known."""
    note = planned.pretrain and planned.pretrain.folder / "hardware.txt"
    return {HARDWARE: note.read_text()} if note and note.exists() else {}

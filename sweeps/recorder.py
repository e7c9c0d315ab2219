"""What MLflow is told of runs: their curves while they train, their results, why they failed."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from time import monotonic, sleep

from selfsup import failures, origin
from selfsup.errors import TrackError
from selfsup.failures import Failure
from selfsup.pipelines.planned import PlannedRun
from selfsup.pipelines.stages.runner import commit
from selfsup.progress import say
from selfsup.shipper import Shipper
from selfsup.stage import digest
from selfsup.sweeps.tags import ARM, KIND, TRIAL
from selfsup.track import ACCEPTED, CODE, ID, LABEL, MODULES, REASON, SEED, Tracker

FLUSH_SECONDS = 60.0  # for what is left of a run that ends
PATIENCE = 60.0  # with a server that is away when all runs have ended


class Recorder:
    """The one writer. While MLflow is away the numbers wait in their files, and nothing else waits.

    tags, parents: of a run's place in a sweep, by its id, as `tree` makes them; looked up when a run is opened.
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

    def begin(self, each: PlannedRun) -> None:
        """Send the curve of a run from now on, as it grows."""
        if each.id in self._live:
            return
        if not self._tracker.reachable():
            say(f"{each.id}: MLflow does not answer; it runs all the same")
            return
        try:
            run = self._open(each)
        except TrackError as error:
            say(f"{each.id}: {error}; it runs all the same")
            return
        shipper = Shipper(self._tracker)
        if each.pretrain:
            shipper.add(run, each.pretrain.spool, prefix="pretrain/")
        shipper.start()
        self._live[each.id] = run, shipper

    def end(self, each: PlannedRun, failure: Failure | None, stopped: str = "") -> None:
        """Send what is left, and how it ended. stopped: why, where somebody decided so."""
        if each.id not in self._live:
            return
        run, shipper = self._live.pop(each.id)
        there = self._tracker.reachable()
        shipper.close(FLUSH_SECONDS if there else 0.0)
        if not there:
            say(f"{each.id}: MLflow does not answer; the numbers are kept, and will be sent")
            return
        try:
            self.publish(each)
            if failure:
                self._tracker.finish(run, "FAILED", failure.reason)
            elif stopped:
                self._tracker.finish(run, "KILLED", stopped)
        except TrackError as error:
            say(f"{each.id}: {error}; the numbers are kept, and will be sent")

    def interrupted(self) -> None:
        """Tell MLflow which runs end here; the same command continues them."""
        for run, shipper in self._live.values():
            shipper.close(1.0)
            with suppress(TrackError):
                self._tracker.finish(run, "KILLED")
        self._live.clear()

    def catch_up(self, runs: Sequence[PlannedRun]) -> None:
        """Publish what ended and was not told yet: MLflow was away, or other work shares the stages.

        A server that is away is waited for. Raises TrackError where it stays away.
        """
        deadline = monotonic() + PATIENCE
        while not self._tracker.reachable() and monotonic() < deadline:
            sleep(1.0)
        names = dict.fromkeys(each.spec for each in runs)
        told = {run.data.tags[ID]: run for name in names for run in self._tracker.runs(name)}
        for each in runs:
            run, failure = told.get(each.id), failures.read(each.failure)
            if each.done and not (run and run.info.status == "FINISHED"):
                self.publish(each)
            elif failure and not each.done and not (run and REASON in run.data.tags):
                self._tracker.finish(self._open(each), "FAILED", failure.reason)

    def publish(self, each: PlannedRun) -> None:
        """Everything known of a run, from its stages' folders. Doing it twice changes nothing. Raises TrackError."""
        run = self._open(each)
        if each.pretrain:
            self._tracker.ship(run, each.pretrain.spool, prefix="pretrain/")
        for stage in each.stages:
            if stage.done:
                values = {f"{stage.space}/{name}": value for name, value in stage.result().items()}
                self._tracker.metrics(run, values, time=stage.time)
                for path in stage.artifacts():
                    self._tracker.artifact(run, path, stage.name or stage.kind)
        if each.done:
            if each.pretrain:
                encoder = each.pretrain.folder / "encoder.safetensors"
                self._tracker.model(run, name=each.id, path=str(encoder), digest=each.pretrain.key)
            self._tracker.finish(run, "FINISHED")

    def _open(self, each: PlannedRun) -> str:
        place = self._tags.get(each.id, {})
        return self._tracker.open(
            id=each.id,
            name=each.id if place.get(KIND) == TRIAL else f"{place.get(ARM, each.label)}, seed {each.run.seed}",
            experiment=each.spec,
            params=each.params(),
            tags={
                LABEL: each.label,
                SEED: str(each.run.seed),
                "selfsup.method": each.run.method,
                "selfsup.commit": commit(),
                **_hardware(each),
                **_code(each),
                **place,
            },
            datasets=[(Path(held.root).name, held.digest, use) for use, held in each.data.items()],
            parent=self._parents.get(each.id),
        )


def _code(each: PlannedRun) -> dict[str, str]:
    """What made it, as far as that is noted: each module with its digest, and a digest of them all."""
    held = [made for stage in each.stages if stage.begun and (made := origin.made(stage))]
    modules = " ".join(sorted({f"{name}:{mark}" for made in held for name, mark in made["modules"].items()}))
    counted = [stage.kind for stage in each.stages if origin.accepted(stage)]
    told = {CODE: digest(modules), MODULES: modules} if modules else {}
    return told | ({ACCEPTED: ", ".join(counted)} if counted else {})


def _hardware(each: PlannedRun) -> dict[str, str]:
    """What it was trained on, once that is known."""
    note = each.pretrain and each.pretrain.folder / "hardware.txt"
    return {"selfsup.hardware": note.read_text()} if note and note.exists() else {}

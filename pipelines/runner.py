"""Runs what a plan asks for and is not done: each stage once, a live line each, every number to MLflow."""

import logging
import os
import subprocess
import threading
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

import ray
import ray.data

from selfsup.errors import SpecError, TrackError
from selfsup.pipelines.evaluate import embed, probe
from selfsup.pipelines.forkserver import forked_workers
from selfsup.pipelines.pictures import pictures
from selfsup.pipelines.pretrain import pretrain
from selfsup.plan import Planned, Stage
from selfsup.progress import follow, say, timed
from selfsup.track import LABEL, SEED, Shipper, Tracker

FLUSH_SECONDS = 60.0


@contextmanager
def cluster() -> Iterator[None]:
    """The cluster of RAY_ADDRESS (set inside a submitted job), or an embedded Ray for as long as the block runs."""
    os.environ.setdefault("RAY_TRAIN_COLLECTIVE_TIMEOUT_S", "1800")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    with forked_workers(_start):
        try:
            yield
        finally:
            ray.shutdown()


def _start() -> None:
    with timed("Ray"):
        ray.init(log_to_driver=False, logging_level=logging.ERROR)
    ray.data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)


def execute(planned: Sequence[Planned], tracker: Tracker) -> None:
    """Bring every run to its end and its numbers to MLflow, as many runs at a time as the cluster holds.

    Call it inside `cluster()` unless every stage is done. Raises SpecError where the cluster can never give what a run
    asks for; the first error of a run, after the others have ended; TrackError where MLflow went away during the runs
    and stayed away: the numbers are kept, and the same command sends them.
    """
    session = Session(tracker)
    pool = ThreadPoolExecutor(_at_a_time([each for each in planned if not each.done]))
    futures = [pool.submit(session.run, each) for each in planned]
    try:
        wait(futures, return_when="FIRST_EXCEPTION")
    except KeyboardInterrupt:
        pool.shutdown(wait=False, cancel_futures=True)
        session.kill()
        say("interrupted; the same command continues")
        raise
    pool.shutdown(cancel_futures=True)
    if failed := [future for future in futures if not future.cancelled() and future.exception()]:
        failed[0].result()
    for each in [each for each, future in zip(planned, futures, strict=True) if not future.result()]:
        publish(each, tracker)


def publish(each: Planned, tracker: Tracker) -> None:
    """Everything known of a run, from its stages' folders. Doing it twice changes nothing."""
    run_id = _open(each, tracker)
    if each.pretrain:
        tracker.ship(run_id, each.pretrain.spool, prefix="pretrain/")
    for stage in each.stages:
        if stage.done:
            tracker.metrics(run_id, {f"{stage.space}/{name}": x for name, x in stage.result().items()}, time=stage.time)
            for path in stage.artifacts():
                tracker.artifact(run_id, path, stage.kind)
    if each.done:
        tracker.finish(run_id, "FINISHED")


class Session:
    """Runs side by side. They share the tracker and, where they agree, stages: the first to come runs one."""

    def __init__(self, tracker: Tracker) -> None:
        self._tracker = tracker
        self._locks: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
        self._live: set[str] = set()

    def run(self, each: Planned) -> bool:
        """Run what is missing; whether MLflow took all its numbers. Without MLflow, they only wait."""
        if not each.done:
            each.remember()
            with self._shipping(each):
                for stage in each.stages:
                    with self._locks[stage.key]:
                        _perform(each, stage)
        try:
            publish(each, self._tracker)
        except TrackError as error:
            say(f"{each.id}: {error}; the numbers are kept, and will be sent")
            return False
        return True

    def kill(self) -> None:
        """Tell MLflow which runs end here; the same command continues them."""
        while self._live:
            with suppress(TrackError):
                self._tracker.finish(self._live.pop(), "KILLED")

    @contextmanager
    def _shipping(self, each: Planned) -> Iterator[None]:
        """Send the run's curve to MLflow while the block runs."""
        try:
            run_id = _open(each, self._tracker)
        except TrackError as error:
            say(f"{each.id}: {error}; it runs all the same")
            yield
            return
        self._live.add(run_id)
        shipper = Shipper(self._tracker)
        if each.pretrain:
            shipper.add(run_id, each.pretrain.spool, prefix="pretrain/")
        shipper.start()
        try:
            yield
        except BaseException:
            if run_id in self._live:
                with suppress(TrackError):
                    self._tracker.finish(run_id, "FAILED")
            raise
        finally:
            shipper.close(FLUSH_SECONDS)
            self._live.discard(run_id)


def _perform(each: Planned, stage: Stage) -> None:
    if stage.done:
        return
    stage.claim()
    title = f"{each.id} seed {each.run.seed}: {stage.kind}"
    if stage.kind == "pretrain":
        with follow(stage, title, each.steps):
            result = pretrain(each, stage)
    else:
        with timed(title):
            result = {"embed": embed, "pictures": pictures}.get(stage.kind, probe)(each, stage)
    stage.finish(result)


def _open(each: Planned, tracker: Tracker) -> str:
    data = {"train": each.train, "val": each.val}
    return tracker.open(
        id=each.id,
        name=each.id,
        experiment=each.spec,
        params=each.params(),
        tags={
            LABEL: each.label,
            SEED: str(each.run.seed),
            "selfsup.method": each.run.method,
            "selfsup.commit": commit(),
        },
        datasets=[(Path(held.root).name, held.digest, use) for use, held in data.items() if held],
    )


@cache
def commit() -> str:
    """The git commit that runs, with a + where the tree differs from it; a submitted job is told it."""
    if told := os.environ.get("SELFSUP_COMMIT"):
        return told
    here = Path(__file__).parent
    asked = subprocess.run(
        ["git", "describe", "--always", "--abbrev=40", "--dirty=+"],
        cwd=here,
        capture_output=True,
        text=True,
        check=False,
    )
    return asked.stdout.strip() or "unknown"


def _at_a_time(planned: Sequence[Planned]) -> int:
    """How many of these runs the cluster holds side by side, data tasks included; 1 where there are none."""
    if not planned:
        return 1
    held = ray.cluster_resources()  # type: ignore[no-untyped-call]
    for each in planned:
        _check_fits(each, held)
    return int(min(held[name] / amount for each in planned for name, amount in _wanted(each).items() if amount))


def _wanted(each: Planned) -> dict[str, float]:
    asked = each.run.resources
    return {
        "CPU": asked.workers * asked.cpus_per_worker + asked.data_cpus,
        "GPU": asked.workers * asked.gpus_per_worker,
    }


def _check_fits(each: Planned, held: Mapping[str, float]) -> None:
    for name, amount in _wanted(each).items():
        if amount > held.get(name, 0.0):
            raise SpecError(
                f"{each.spec}: resources: the workers of a run and their data tasks ask for {amount:g} {name}s, the "
                f"cluster has {held.get(name, 0.0):g}: it could never start. Lower resources, or add nodes."
            )

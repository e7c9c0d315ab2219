"""Execution of the stages of a run that are not done yet."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from functools import cache
from pathlib import Path

from selfsup import codebase, failures, origin
from selfsup.homes import discard_parts, fetch, forget, make_room, mirror_of, publish
from selfsup.mirror_index import inputs
from selfsup.objects import StorageError
from selfsup.pipelines import records
from selfsup.pipelines.cluster.carried import carrying
from selfsup.pipelines.cluster.creator import keep_claims
from selfsup.pipelines.cluster.slot import serving
from selfsup.pipelines.drawn import PAINT, PICTURES, VISUALIZE
from selfsup.pipelines.embedding import EVALUATE, VERSIONS, VIEWS
from selfsup.pipelines.planned import TARGETS, WORKER, PlannedRun
from selfsup.pipelines.stages.curves import evaluating
from selfsup.pipelines.stages.evaluate import embed, probe
from selfsup.pipelines.stages.paint import paint
from selfsup.pipelines.stages.pictures import pictures
from selfsup.pipelines.stages.pretrain import pretrain, slot_kind
from selfsup.pipelines.stages.targets import targets
from selfsup.pipelines.stages.views import views
from selfsup.pipelines.stages.visualize import visualize
from selfsup.stage import Stage

# Digests of the modules as imported: forks of this process run these, even if their files change later.
codebase.modules(WORKER, EVALUATE, VIEWS, *VERSIONS.values(), PICTURES, TARGETS, VISUALIZE, PAINT)

WORK = {  # every other stage is a probe
    "pretrain": pretrain,
    "targets": targets,
    "pictures": pictures,
    "visualize": visualize,
    "paint": paint,
    "embed": embed,
    "views": views,
}


def perform(run: PlannedRun, *, keep_slot: bool = False) -> None:
    """Execute all stages of a run that are not done. An error is also written to `run.failure`.

    keep_slot: for the next run of this process.
    """
    try:
        if run.failure.exists():
            forget(run.failure)
            run.failure.unlink(missing_ok=True)
        keep_claims(run.home)
        records.remember(run)
        records.check_unchanged(run)
        is_warm = run.run.resources.slots == "warm"
        with serving(slot_kind(run), keep=keep_slot and is_warm) if is_warm or mirror_of(run.home) else nullcontext():
            for stage in run.stages:
                _perform(run, stage)
    except Exception as error:
        with suppress(OSError, StorageError):  # as of a full disk
            failures.write(failures.classify(error), run.failure)
            publish(run.failure)
        raise


def _perform(run: PlannedRun, stage: Stage) -> None:
    patience = run.run.resources.storage_patience
    with stage.held() as check:
        origin.settle([stage], run.code)
        if not stage.made:
            origin.claim(stage)
            publish(stage.folder, patience=patience)
            read = [other.folder for other in read_by(run, stage)]
            fetch(read, inputs, patience=patience)
            with _kept(stage), carrying(read, stage.folder), evaluating(run, stage):
                result = WORK.get(stage.kind, probe)(run.owner(stage), stage)
            check()
            stage.finish(result)
            discard_parts(stage.folder)
        publish(stage.folder, patience=patience)
    make_room(run.home)


@contextmanager
def _kept(stage: Stage) -> Iterator[None]:
    """Publish what a failure leaves of a stage on this node: checkpoints, where the process that wrote them is dead."""
    try:
        yield
    except Exception:
        with suppress(StorageError):
            publish(stage.folder)
        raise


def read_by(run: PlannedRun, stage: Stage) -> list[Stage]:
    """Return the stages whose files a stage reads: an embed stage also those of training samples that others made."""
    others = [other for other in run.embeds.values() if other.key != stage.key and other.made]
    return [*stage.after, *(others if stage.kind == "embed" else ())]


@cache
def commit() -> str:
    """Return the git commit of this code, with a + where the tree differs from it; a job has it in its environment."""
    if submitted := os.environ.get("SELFSUP_COMMIT"):
        return submitted
    output = subprocess.run(
        ["git", "describe", "--always", "--abbrev=40", "--dirty=+"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return output.stdout.strip() or "unknown"

"""Execution of the stages of a run that are not done yet."""

import os
import subprocess
from contextlib import nullcontext, suppress
from functools import cache
from pathlib import Path

from selfsup import codebase, failures, origin
from selfsup.pipelines import records
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
        run.failure.unlink(missing_ok=True)
        records.remember(run)
        records.check_unchanged(run)
        with serving(slot_kind(run), keep=keep_slot) if run.run.resources.slots == "warm" else nullcontext():
            for stage in run.stages:
                _perform(run, stage)
    except Exception as error:
        with suppress(OSError):  # as of a full disk
            failures.write(failures.classify(error), run.failure)
        raise


def _perform(run: PlannedRun, stage: Stage) -> None:
    with stage.held():
        origin.settle([stage], run.code)
        if not stage.done:
            origin.claim(stage)
            with evaluating(run, stage):
                result = WORK.get(stage.kind, probe)(run.owner(stage), stage)
            stage.finish(result)


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

"""Runs the stages of one Run that are not done, each once."""

import os
import subprocess
from contextlib import suppress
from functools import cache
from pathlib import Path

from selfsup import codebase, failures, origin
from selfsup.pipelines.planned import EVALUATE, PICTURES, WORKER, PlannedRun
from selfsup.pipelines.stages.evaluate import embed, probe
from selfsup.pipelines.stages.pictures import pictures
from selfsup.pipelines.stages.pretrain import pretrain

codebase.modules(WORKER, EVALUATE, PICTURES)  # as imported: a process that is forked from this one runs these, whatever
# their files say by then

WORK = {"pretrain": pretrain, "pictures": pictures, "embed": embed}  # every other stage is a probe


def perform(each: PlannedRun) -> None:
    """Bring a run to its end. What stops it is raised, and noted in `each.failure` until the next attempt."""
    try:
        each.failure.unlink(missing_ok=True)
        each.remember()
        each.check_unchanged()
        for stage in each.stages:
            with stage.held():
                origin.settle([stage], each.code)
                if not stage.done:
                    origin.claim(stage)
                    stage.finish(WORK.get(stage.kind, probe)(each, stage))
    except Exception as error:
        with suppress(OSError):  # of a full disk, too
            failures.write(failures.classify(error), each.failure)
        raise


@cache
def commit() -> str:
    """The git commit that runs, with a + where the tree differs from it; a submitted job is told it."""
    if told := os.environ.get("SELFSUP_COMMIT"):
        return told
    asked = subprocess.run(
        ["git", "describe", "--always", "--abbrev=40", "--dirty=+"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return asked.stdout.strip() or "unknown"

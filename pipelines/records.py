"""Records of runs that begin: their settings and the keys of their stages, and what must not have changed since."""

from dataclasses import replace

from selfsup.errors import SpecError
from selfsup.homes import publish
from selfsup.knob import as_dict
from selfsup.layers import located
from selfsup.pipelines.planned import PlannedRun
from selfsup.stage import record, write_json


def remember(run: PlannedRun) -> None:
    """Write the record of a run, under its id."""
    path = record(run.home, run.id)
    path.parent.mkdir(parents=True, exist_ok=True)
    stages = {"pretrain": run.pretrain and run.pretrain.key, "stages": [stage.key for stage in run.stages]}
    write_json(path, {"run": as_dict(run.run), "spec": run.spec, **stages})
    publish(path, patience=run.run.resources.storage_patience)


def check_unchanged(run: PlannedRun) -> None:
    """Raise SpecError where a file that is part of the id has changed since."""
    if replace(run).id != run.id:  # a copy reads it anew
        path = "weights" if run.run.backbone.weights else "name"
        changed = f"{getattr(run.run.backbone, path)} has changed since the run was planned"
        with located(run.root):
            raise SpecError(f"{changed}; run the same command again: it is another run now", f"backbone.{path}")

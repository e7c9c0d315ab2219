"""Small runs of pre-training: started, killed, and compared."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray
import torch
from ray.util.state import list_actors
from tiny import BACKBONE

from selfsup.metrics_log import records, tail
from selfsup.pipelines.planned import PlannedRun
from selfsup.pipelines.stages.pretrain import pretrain

STEPS, EVERY, LOG = 60, 6, 4
TINY: dict[str, Any] = {
    "name": "tiny",
    "method": "mae",
    "baselines": False,
    "hyper": {"decoder_width": 32, "decoder_depth": 1, "decoder_heads": 2},
    "backbone": BACKBONE,
    "optim": {"name": "sgd", "lr": 0.05, "lr_rule": "none", "weight_decay": 0.0},
    "train": {"duration": {"steps": STEPS}, "batch": 16, "checkpoint_every": EVERY, "log_every": LOG},
    "stream": {"lanes": 4, "chunk": 8, "mix": 4, "bad_share": 0.05},
    "evals": {"knn": {"k": 3}, "linear": {}},
}


def trained(each: PlannedRun) -> dict[str, float]:
    assert each.pretrain
    each.pretrain.claim()
    return pretrain(each, each.pretrain)


def folder(each: PlannedRun) -> Path:
    assert each.pretrain
    return each.pretrain.folder


def workers() -> list[Any]:
    """Return every training worker that this session has seen, dead or alive."""
    address = ray.get_runtime_context().gcs_address  # others may run on this machine
    return list(list_actors(address, filters=[("class_name", "=", "RayTrainWorker")], limit=1000))


def losses(each: PlannedRun) -> dict[int, float]:
    found = list(records(folder(each) / "metrics.jsonl"))
    assert [record.step for record in found] == list(range(LOG, STEPS + 1, LOG))
    return {record.step: record.values["loss"] for record in found}


def kill_after(step: int, each: PlannedRun, ended: Callable[[], bool]) -> int:
    """Kill the training process once `step` is done; return the step that it was seen at."""
    pid = None
    while not ended():
        if pid is None:
            alive = [actor.pid for actor in workers() if actor.state == "ALIVE" and actor.pid]
            pid = alive[0] if alive else None
        latest = tail(folder(each) / "metrics.jsonl")
        if pid and latest and latest.step >= step:
            os.kill(pid, signal.SIGKILL)
            return latest.step
        time.sleep(0.005)
    raise AssertionError("it ended before it could be killed")


def distance(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    assert one.keys() == other.keys()
    return float(torch.stack([(one[name] - other[name]).norm() for name in one]).norm())

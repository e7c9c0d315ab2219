"""The targets stage: what an objective makes of a teacher's features of all training samples, before it trains."""

import torch

from selfsup import tensors
from selfsup.method import load
from selfsup.pipelines.objective import TARGETS
from selfsup.pipelines.planned import PlannedRun
from selfsup.pipelines.stages.evaluate import embed_splits, read_features
from selfsup.stage import Stage


def targets(planned: PlannedRun, stage: Stage) -> dict[str, float]:
    """Write `targets.safetensors` to the stage's folder, and the features that they are made of."""
    assert planned.teacher
    run, train = planned.run, planned.learned
    numbers = embed_splits(planned.teacher, train, None, stage.folder)
    table, value = read_features(stage.folder)
    features, sample = torch.tensor(value), torch.tensor(table["id"].to_numpy())
    made = load(run.method).prepare(run.hyper, features, sample, train.num_samples, run.seed)
    tensors.save({"targets": made}, stage.folder / TARGETS)
    return numbers

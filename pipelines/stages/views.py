"""The views stage: features of augmented views of training samples, a random crop and flip each, for evaluations."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from selfsup import modality
from selfsup.modality import DecodeError
from selfsup.pipelines.data.manifest import Manifest, SampleReader
from selfsup.pipelines.data.philox import CROP, PHOTO, uniform
from selfsup.pipelines.objective import ENCODER
from selfsup.pipelines.planned import PlannedRun
from selfsup.pipelines.stages.evaluate import source_of, write_features
from selfsup.pipelines.stages.view_table import chosen
from selfsup.stage import Stage
from selfsup.views import Crop, Views, ViewSpec

SEED = 0  # the same views for every run: what differs between runs is the encoder

Columns = dict[str, NDArray[Any]]


class LoadViews:
    """A map from numbers, all samples' first views before their second ones, to the views that can be decoded."""

    def __init__(self, train: Manifest, view: ViewSpec, samples: NDArray[np.int64]) -> None:
        self._train, self._view, self._samples = train, view, samples

    def __call__(self, batch: Columns) -> Columns:
        kind, reading = modality.ready(self._view.modality), self._train.fields[self._view.modality]
        number, ids = batch["id"] // len(self._samples), self._samples[batch["id"] % len(self._samples)]
        draws = {"seed": SEED, "epoch": number, "index": ids}
        photo = uniform(**draws, purpose=PHOTO, draws=kind.augment_draws(self._view))
        made = dict(self._made(ids, uniform(**draws, purpose=CROP, draws=kind.place_draws)))
        rows, (shape, dtype) = list(made), kind.raw(self._view, reading)
        return {
            "sample": np.stack(list(made.values())) if made else np.empty((0, *shape), dtype),
            "draws": photo[rows],
            "id": ids[rows],
            "view": number[rows],
        }

    def _made(self, ids: NDArray[np.int64], draws: NDArray[np.float32]) -> Iterator[tuple[int, NDArray[Any]]]:
        """Yield row and view of each sample that can be decoded."""
        kind, reading = modality.load(self._view.modality), self._train.fields[self._view.modality]
        for row, sample in enumerate(SampleReader(self._train, self._view.modality).read(ids)):
            try:
                extents = np.array([kind.extent(sample.data, reading)])
                boxes = kind.place(self._view, extents, draws[row : row + 1])
                yield row, kind.load(sample.data, boxes, [self._view], reading)[0]
            except DecodeError:
                continue


def views(planned: PlannedRun, stage: Stage) -> dict[str, float]:
    """Write the features of augmented views under the stage's folder, whole or not at all."""
    evaluation = next(planned.evals[name] for name, made_by in planned.views.items() if made_by.key == stage.key)
    train, choice = planned.splits(evaluation.name).train, planned.feature(evaluation)
    [view] = modality.views_of(Views((Crop(),)), planned.run.input, planned.run.backbone).specs
    weights = planned.pretrain.folder / ENCODER if planned.pretrain else None
    source, samples = source_of(planned, weights, choice), chosen(train.num_samples, choice.images)
    total = choice.views * len(samples)
    return write_features(replace(source, view=view), LoadViews(train, view, samples), planned.run, total, stage.folder)

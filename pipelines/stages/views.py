"""The views stage: features of several versions of each sample of a split, for evaluations that ask for them."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from selfsup import modality
from selfsup.modality import DecodeError, Raw
from selfsup.pipelines.data.reader import SampleReader
from selfsup.pipelines.objective import ENCODER
from selfsup.pipelines.planned import PlannedRun
from selfsup.pipelines.stages.encoder_source import EncoderSource
from selfsup.pipelines.stages.encoding import write_features
from selfsup.pipelines.stages.evaluate import source_of
from selfsup.pipelines.stages.versions import Columns, Versions, load
from selfsup.pipelines.stages.view_table import chosen
from selfsup.stage import Stage


class LoadVersions:
    """A map from numbers, all samples' first versions before their second ones, to those that can be decoded."""

    def __init__(self, versions: Versions, samples: NDArray[np.int64]) -> None:
        self._versions, self._samples = versions, samples

    def __call__(self, batch: Columns) -> Columns:
        versions = self._versions
        kind = modality.ready(versions.view.modality)
        number, ids = batch["id"] // len(self._samples), self._samples[batch["id"] % len(self._samples)]
        made = dict(self._made(ids, number))
        rows, (shape, dtype) = list(made), kind.raw(versions.view, versions.reading)
        value = np.stack(list(made.values())) if made else np.empty((0, *shape), dtype)
        return {"sample": value, "id": ids[rows], "view": number[rows]} | versions.columns(ids[rows], number[rows])

    def _made(self, ids: NDArray[np.int64], numbers: NDArray[np.int64]) -> Iterator[tuple[int, Raw]]:
        """Yield row and value of each version that can be decoded."""
        samples = SampleReader(self._versions.split, self._versions.field).read(ids)
        for row, (sample, name, version) in enumerate(zip(samples, ids.tolist(), numbers.tolist(), strict=True)):
            try:
                yield row, self._versions.load(sample.data, name, version)
            except DecodeError:
                continue


def views(planned: PlannedRun, stage: Stage) -> dict[str, float]:
    """Write the features of versions of samples under the stage's folder, whole or not at all."""
    name = next(name for name, made_by in planned.views.items() if made_by.key == stage.key)
    weights = planned.pretrain.folder / ENCODER if planned.pretrain else None
    source, load_versions, total = versions_of(planned, name, weights)
    return write_features(source, load_versions, planned.run, total, stage.folder)


def versions_of(planned: PlannedRun, name: str, weights: Path | None) -> tuple[EncoderSource, LoadVersions, int]:
    """Return the encoder of the versions that an evaluation reads, what loads these, and how many they are.

    weights: the file of a trained encoder.
    """
    choice = planned.feature(planned.evals[name])
    split = getattr(planned.splits(name), choice.split)
    source, samples = source_of(planned, weights, choice), chosen(split.num_samples, choice.images)
    versions = load(choice.versions)(planned.run, split, source.view)
    return replace(source, view=versions.view), LoadVersions(versions, samples), choice.views * len(samples)

"""Augmented views of samples: a random crop and flip each."""

import numpy as np
from numpy.typing import NDArray

from selfsup import input_kinds, modality
from selfsup.modality import Data, Raw
from selfsup.pipelines.data.philox import CROP, PHOTO, uniform
from selfsup.pipelines.stages.versions import Columns, Versions, shown
from selfsup.spec import Run
from selfsup.views import Crop, Views, ViewSpec

SEED = 0  # the same views for every run: what differs between runs is the encoder


class Augmented(Versions):
    """Random resized crops, of the area and shape that ImageNet's training has, of which half are mirrored."""

    def view_of(self, run: Run) -> ViewSpec:
        view: ViewSpec = input_kinds.views_of(Views((Crop(),)), run.kinds, run.backbone).specs[0]
        return view

    def load(self, data: Data, sample: int, version: int) -> Raw:
        counter = {"epoch": np.array([version]), "index": np.array([sample])}
        draws = modality.load(self.view.modality).place_draws
        return shown(data, self.view, self.reading, uniform(seed=SEED, **counter, purpose=CROP, draws=draws))

    def columns(self, samples: NDArray[np.int64], versions: NDArray[np.int64]) -> Columns:
        draws = modality.load(self.view.modality).augment_draws(self.view)
        return {"draws": uniform(seed=SEED, epoch=versions, index=samples, purpose=PHOTO, draws=draws)}

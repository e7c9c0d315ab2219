"""The right one of two views of a scene, of cameras side by side, seen as evaluations see the left one."""

import numpy as np

from selfsup.modality import Data, Raw
from selfsup.pipelines.data.annotation import RIGHT
from selfsup.pipelines.data.manifest import Manifest
from selfsup.pipelines.stages.versions import Versions, shown


class Right(Versions):
    """Images that lie beside samples as `.right.jpg`."""

    @property
    def field(self) -> str:
        return RIGHT

    def load(self, data: Data, sample: int, version: int) -> Raw:  # noqa: ARG002
        return shown(data, self.whole, self.reading, np.empty((1, 0)))

    @classmethod
    def unfit(cls, modality: str, split: Manifest) -> str:
        if modality == "image" and RIGHT in split.annotations:
            return ""
        return f"it needs .right.jpg, a second view, beside each image, and {split.root} has none"

"""Corruptions of samples: the kinds of ImageNet-C in their order, each at its severities, from the mildest on."""

import numpy as np

from selfsup.modality import Data, Raw
from selfsup.parts.corruptions import KINDS, SEVERITIES, corrupted
from selfsup.pipelines.data.manifest import Manifest
from selfsup.pipelines.stages.versions import Versions, shown


class Corrupted(Versions):
    """Samples as evaluations see them, cut and resized, and then corrupted."""

    def load(self, data: Data, sample: int, version: int) -> Raw:
        kind, severity = divmod(version, SEVERITIES)
        image = shown(data, self.whole, self.reading, np.empty((1, 0)))
        return corrupted(image, list(KINDS)[kind], severity + 1, number=sample)

    @classmethod
    def unfit(cls, modality: str, split: Manifest) -> str:
        reading = split.reading(modality)
        if modality != "image":
            return f"it corrupts images, and the run is of {modality}"
        colors = reading.channels, getattr(reading, "depth", 8)
        return "" if colors == (3, 8) else f"it corrupts RGB images of 8 bits, not {colors[0]} channels of {colors[1]}"

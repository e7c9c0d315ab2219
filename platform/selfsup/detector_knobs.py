"""Knobs and metrics of what detects objects by the Mask R-CNN of `parts.detector`, on frozen tokens or trained."""

from types import MappingProxyType
from typing import Any

from selfsup.evaluator import Metric, all_positive
from selfsup.knob import Knobs, knob

PRECISIONS = MappingProxyType(
    {"ap": Metric(), "ap50": Metric(headline=False), "mask_ap": Metric(), "mask_ap50": Metric(headline=False)}
)


class DetectorKnobs(Knobs):
    """Knobs of a Detector."""

    width: int = knob(256, "channels of pyramid and heads; four times as many of the linear layer", ge=1)
    anchors: tuple[float, ...] = knob(
        (2.0, 4.0, 8.0, 16.0, 32.0),
        "sides of boxes to start from, in tokens, of each of the five levels from the finest",
        min_length=5,
        max_length=5,
    )
    proposals: int = knob(1000, "regions proposed in an image, at most", ge=1)
    regions: int = knob(512, "of these, those that the heads learn from", ge=1)

    _positive = all_positive("anchors", "side")

    @property
    def sizes(self) -> dict[str, Any]:
        """Return the arguments of the Detector by their names."""
        return {name: getattr(self, name) for name in DetectorKnobs.model_fields}

"""Segments as an objective's own decoder paints them of images alone, which the encoder sees whole: nothing is learned.

MultiMAE, Bachmann et al., ECCV 2022, arXiv 2204.01678, paints them so (figures 1 and 4): of each of its pixels the
likeliest class. Deviations: whole images, squashed to the encoder's size; scores are those of `segment_finetune`.
"""

from collections.abc import Iterator
from types import MappingProxyType

from selfsup.evaluator import Evaluator, Features, Metric, Score, check_predicted
from selfsup.knob import Knobs


class SegmentDecoded(Evaluator):
    """Mean IoU of the classes of pixels that the objective's decoder paints of images."""

    reads, target = "decoded_seg", "seg"
    metrics = MappingProxyType({"miou": Metric(), "pixels": Metric(headline=False)})

    class Hyper(Knobs):
        pass

    def __init__(self, hyper: Hyper) -> None:
        self.hyper = hyper

    def run(self, features: Features, *, seed: int, device: str = "cpu") -> Iterator[tuple[str, Score]]:  # noqa: ARG002
        import torch

        from selfsup.parts.dense import accuracy, confusion, mean_iou

        guess, true = check_predicted(features, lambda map_: map_ >= 0, "has a class")
        classes = max(features.classes, int(guess.max()) + 1)
        images = ((torch.as_tensor(one).long() for one in pair) for pair in zip(true, guess, strict=True))
        counts = torch.stack([confusion(own, other, classes) for own, other in images]).sum(0)
        yield "miou", mean_iou(counts)
        yield "pixels", accuracy(counts)

"""Segmentation by fine-tuning: the encoder and a decoder of its tokens are trained on maps of classes.

The linear decoder of Robin Strudel et al., "Segmenter: Transformer for Semantic Segmentation", ICCV 2021, arXiv
2105.05633, with the training of a ViT-B of Kaiming He et al., "Masked Autoencoders Are Scalable Vision Learners", CVPR
2022, arXiv 2111.06377, appendix A.3, as mmsegmentation has it for ADE20K: 160,000 steps of 16 images, which are 127
epochs, AdamW at 1e-4 with decay 0.05, layer decay 0.65, drop path 0.1, a warm-up of 1500 steps. MAE's decoder, UPerNet,
arXiv 1807.10221, is `decoder: upernet`.

Deviations: a cosine in place of a line to 0; crops of a share of the image and of either shape, not windows at scales
from 0.5 to 2, and no change of colors; whole images at test, squashed to the encoder's size, not sliding windows;
positions as the encoder has them, without biases.
"""

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, Literal

from selfsup.evaluator import Evaluator, Features, Metric, Score, check_predicted
from selfsup.knob import Choice, Knobs, Range, knob


class SegmentFinetune(Evaluator):
    """Mean IoU of the pixels' classes after training the encoder on maps; of the untrained one, from scratch."""

    reads, target = "logits", "seg"
    metrics = MappingProxyType({"miou": Metric(), "pixels": Metric(headline=False)})

    class Hyper(Knobs):
        classes: int = knob(150, "of the maps: more than their largest number", ge=2)
        epochs: float = knob(127.0, "passes over the training samples", gt=0, le=1e6)
        batch: int = knob(16, "samples a step, over all workers", symbol="B", gt=0)
        accumulate: int = knob(1, "pieces that a worker's batch is worked through in, to save memory", ge=1)
        lr: float = knob(1e-4, "learning rate", symbol="η", sweep=Range(1e-5, 1e-3, log=True), gt=0)
        layer_decay: float = knob(
            0.65, "rate of a layer, as a share of the next one's", sweep=Range(0.5, 1.0), gt=0, le=1
        )
        weight_decay: float = knob(0.05, "AdamW's", symbol="λ", ge=0)
        drop_path: float = knob(0.1, "share of residual branches left out", sweep=Choice(0.0, 0.1, 0.2), ge=0, lt=1)
        warmup: int = knob(1500, "steps in which the rate rises", ge=0)
        crop_min: float = knob(0.25, "smallest crop, as a share of the image", gt=0, le=1)
        decoder: Literal["linear", "upernet"] = knob("linear", "a layer on each token, or UPerNet on four blocks")
        width: int = knob(512, "channels of UPerNet", ge=2)

    def __init__(self, hyper: Hyper) -> None:
        self.hyper = hyper

    @classmethod
    def training(cls, hyper: Hyper) -> Mapping[str, Any]:
        optim = {name: getattr(hyper, name) for name in ("lr", "layer_decay", "weight_decay")}
        rise = {"warmup": {"steps": hyper.warmup}} if hyper.warmup else {}
        return {
            "method": "dense.segmenter",
            "hyper": {name: getattr(hyper, name) for name in ("classes", "crop_min", "decoder", "width")},
            "backbone": {"drop_path": hyper.drop_path},
            "optim": {"name": "adamw", "betas": (0.9, 0.999), "lr_rule": "none", **optim, **rise},
            "train": {"duration": {"epochs": hyper.epochs}, "batch": hyper.batch, "accumulate": hyper.accumulate},
        }

    def run(self, features: Features, *, seed: int, device: str = "cpu") -> Iterator[tuple[str, Score]]:  # noqa: ARG002
        import torch

        from selfsup.parts.dense import accuracy, confusion, mean_iou

        guess, true = check_predicted(features, lambda map_: map_ >= 0, "has a class")
        classes = max(features.classes, self.hyper.classes)
        images = ((torch.as_tensor(one).long() for one in pair) for pair in zip(true, guess, strict=True))
        counts = torch.stack([confusion(own, other, classes) for own, other in images]).sum(0)
        yield "miou", mean_iou(counts)
        yield "pixels", accuracy(counts)

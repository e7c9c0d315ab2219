"""Detection and instance segmentation by fine-tuning: the encoder and a Mask R-CNN on its tokens are trained together.

ViTDet: Yanghao Li et al., "Exploring Plain Vision Transformer Backbones for Object Detection", ECCV 2022, arXiv
2203.16527, and its authors' mask_rcnn_vitdet_b_100ep for COCO, of an MAE ViT-B: 100 epochs of batches of 64, AdamW at
1e-4 with decay 0.1, layer decay 0.7, drop path 0.1, a warm-up of 250 steps, a tenth of the rate after 8/9 of them and a
hundredth after 26/27. AP is COCO's, by pycocotools, as in `detection`, which has the same detector on frozen tokens.

Deviations: those of the detector, which `detection` names; attention is of all tokens in all blocks, not in windows;
crops of a share of the image and of either shape, not scales from 0.1 to 2; whole images at test, squashed to the
encoder's size; losses are averaged over images; biases do not decay.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from selfsup.detector_knobs import PRECISIONS, DetectorKnobs
from selfsup.errors import DataError
from selfsup.evaluator import Evaluator, Features, Score, check, maps_of
from selfsup.knob import Choice, Range, knob

DROPS = 8 / 9, 26 / 27  # shares of the training after which the rate is divided by ten


class DetectionFinetune(Evaluator):
    """AP of boxes and of masks after training the encoder with a Mask R-CNN; of the untrained one, from scratch."""

    reads, target = "logits", "objects"
    metrics = PRECISIONS

    class Hyper(DetectorKnobs):
        classes: int = knob(80, "of objects: more than the largest number in the maps", ge=1)
        epochs: float = knob(100.0, "passes over the training samples", gt=0, le=1e6)
        batch: int = knob(64, "samples a step, over all workers", symbol="B", gt=0)
        accumulate: int = knob(1, "pieces that a worker's batch is worked through in, to save memory", ge=1)
        lr: float = knob(1e-4, "learning rate", symbol="η", sweep=Range(1e-5, 1e-3, log=True), gt=0)
        layer_decay: float = knob(
            0.7, "rate of a layer, as a share of the next one's", sweep=Range(0.5, 1.0), gt=0, le=1
        )
        weight_decay: float = knob(0.1, "AdamW's", symbol="λ", ge=0)
        drop_path: float = knob(0.1, "share of residual branches left out", sweep=Choice(0.0, 0.1, 0.2), ge=0, lt=1)
        warmup: int = knob(250, "steps in which the rate rises", ge=0)
        crop_min: float = knob(0.25, "smallest crop, as a share of the image", gt=0, le=1)

    def __init__(self, hyper: Hyper) -> None:
        self.hyper = hyper

    @classmethod
    def training(cls, hyper: Hyper) -> Mapping[str, Any]:
        optim = {name: getattr(hyper, name) for name in ("lr", "layer_decay", "weight_decay")}
        rise = {"warmup": {"steps": hyper.warmup}} if hyper.warmup else {}
        return {
            "method": "dense.object_detector",
            "hyper": {"classes": hyper.classes, "crop_min": hyper.crop_min, **hyper.sizes},
            "backbone": {"drop_path": hyper.drop_path},
            "optim": {"name": "adamw", "betas": (0.9, 0.999), "lr_rule": "none", "drops": DROPS, **optim, **rise},
            "train": {"duration": {"epochs": hyper.epochs}, "batch": hyper.batch, "accumulate": hyper.accumulate},
        }

    def run(self, features: Features, *, seed: int, device: str = "cpu") -> Iterator[tuple[str, Score]]:  # noqa: ARG002
        import torch

        from selfsup.parts.detector import unpacked
        from selfsup.parts.objects import average_precision, objects_of

        check(features, labelled=False, learns=False)
        _, maps = maps_of(features)
        if not any((seg[inst > 0] >= 0).any() for seg, inst in maps):
            raise DataError("evaluation: no image of val shows an object that has a class")
        packed = (unpacked(torch.as_tensor(rows), maps.shape[-1]) for rows in features.val)
        scores = average_precision(zip(map(objects_of, maps), packed, strict=True))
        (ap, ap50), (mask_ap, mask_ap50) = scores["boxes"], scores["masks"]
        yield from (("ap", ap), ("ap50", ap50), ("mask_ap", mask_ap), ("mask_ap50", mask_ap50))

"""Detection and instance segmentation by Mask R-CNN on frozen tokens: boxes, classes and masks of objects.

The detector of Yanghao Li et al., "Exploring Plain Vision Transformer Backbones for Object Detection" (ViTDet), ECCV
2022, arXiv 2203.16527, and its authors' mask_rcnn_vitdet_b_100ep for COCO: a simple pyramid of the last map, two layers
of proposals, four layers and a linear one of boxes, four of masks, each with LayerNorm; AdamW at 1e-4 with decay 0.1,
none of norms; batches of 64, a warm-up of 250 steps, 100 epochs, a tenth of the rate after 8/9 of them and a hundredth
after 26/27. AP is COCO's, by pycocotools: the mean over ten overlaps and over classes, of boxes and of masks.

Deviations: the encoder is frozen, as DINOv3's is in detection, and sees the whole image, squashed to its size, once:
there is no jitter of scale and no mirrored copy; tokens are standardised on train, and a grid of them is filled up to
a multiple of 4; torchvision's parts, whose linear layers begin with other weights than detectron2's, whose losses of
boxes are square below 1/9, and whose regions are pooled from four points a place, half a pixel of a map off. Objects of
no class are not there. On a GPU gradients are sums in any order.
"""

from collections.abc import Iterator
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from selfsup.detector_knobs import PRECISIONS, DetectorKnobs
from selfsup.errors import DataError
from selfsup.evaluator import Evaluator, Features, Map, Score, check, maps_of
from selfsup.knob import knob

if TYPE_CHECKING:
    from torch import Tensor
    from torch.optim import AdamW

    from selfsup.parts.detector import Detector
    from selfsup.parts.objects import Objects

FIRST = 0.001  # share of the rate that the first step has
DROPS = 8 / 9, 26 / 27  # shares of the training after which the rate is divided by ten


class Detection(Evaluator):
    """Average precision (AP) of boxes and of masks of objects by a Mask R-CNN that learns from frozen tokens."""

    reads, target = "tokens", "objects"
    metrics = PRECISIONS
    cheap = MappingProxyType({"width": 8, "proposals": 4, "regions": 4, "epochs": 0.03, "batch": 8})

    class Hyper(DetectorKnobs):
        epochs: float = knob(100.0, "passes over the training images", gt=0, le=1e6)
        batch: int = knob(64, "images per step", ge=1)
        lr: float = knob(1e-4, "learning rate of AdamW", symbol="η", gt=0)
        weight_decay: float = knob(0.1, "AdamW's", symbol="λ", ge=0)
        warmup: int = knob(250, "steps in which the rate rises", ge=0)

    def __init__(self, hyper: Hyper) -> None:
        self.hyper = hyper

    def run(self, features: Features, *, seed: int, device: str = "cpu") -> Iterator[tuple[str, Score]]:
        from selfsup.parts.objects import average_precision

        check(features, labelled=False)
        for part, maps in zip(("train", "val"), maps_of(features), strict=True):
            if not any((seg[inst > 0] >= 0).any() for seg, inst in maps):
                raise DataError(f"evaluation: no image of {part} shows an object that has a class")
        scores = average_precision(self.guesses(features, seed=seed, device=device))
        (ap, ap50), (mask_ap, mask_ap50) = scores["boxes"], scores["masks"]
        yield from (("ap", ap), ("ap50", ap50), ("mask_ap", mask_ap), ("mask_ap50", mask_ap50))

    def guesses(self, features: Features, *, seed: int, device: str = "cpu") -> Iterator[tuple["Objects", "Objects"]]:
        """Yield what each validation image shows, and what a detector that is trained on train makes of it."""
        import torch

        from selfsup.parts.moments import moments

        train_map, val_map = maps_of(features)
        scale = moments(features.train, torch.arange(len(features.train)), device)
        detector = self.fit(DetectionSet(features.train, train_map, *scale), features.classes, seed)
        val = DetectionSet(features.val, val_map, *scale)
        for rows in torch.split(torch.arange(len(features.val)), self.hyper.batch):
            tokens, true = val.read(rows)
            yield from zip(true, detector.guesses(tokens, val_map.shape[-1]), strict=True)

    def fit(self, train: "DetectionSet", classes: int, seed: int) -> "Detector":
        """Return a detector of so many classes, trained by AdamW. Raises DataError for one that diverged."""
        import torch

        from selfsup.parts.detector import Detector
        from selfsup.parts.linear_heads import batches

        hyper, device = self.hyper, train.mean.device
        total = max(1, round(hyper.epochs * len(train.tokens) / hyper.batch))
        order = torch.Generator().manual_seed(seed)  # on the CPU, so that every device sees the same order
        with torch.random.fork_rng([device] if device.type == "cuda" else []):  # torchvision draws from the common one
            torch.manual_seed(seed)
            detector = Detector(len(train.mean), classes, **hyper.sizes).to(device)
            optimizer = adamw(detector, hyper.weight_decay)
            for step, rows in enumerate(batches(torch.arange(len(train.tokens)), hyper.batch, total, order)):
                for group in optimizer.param_groups:
                    group["lr"] = hyper.lr * share(step, total, hyper.warmup)
                optimizer.zero_grad()
                detector.loss(*train.read(rows)).backward()  # type: ignore[no-untyped-call]
                optimizer.step()
        if not all(weight.isfinite().all() for weight in detector.parameters()):
            raise DataError("evaluation: the detector diverged; set a smaller lr")
        return detector


class DetectionSet(NamedTuple):
    """Images that are read as they are needed, and the scale of their tokens: (D,) each, on the detector's device."""

    tokens: NDArray[np.float32]
    maps: Map
    mean: "Tensor"
    std: "Tensor"

    def read(self, rows: "Tensor") -> tuple["Tensor", list["Objects"]]:
        """(B,) -> standardised tokens (B, T, D), and the objects of each image"""
        import torch

        from selfsup.parts.objects import objects_of

        place = rows.numpy()
        tokens = torch.as_tensor(self.tokens[place], device=self.mean.device)
        return (tokens - self.mean) / self.std, [objects_of(one) for one in self.maps[place]]


def adamw(detector: "Detector", decay: float) -> "AdamW":
    """Return AdamW, which leaves norms undecayed."""
    import torch

    layers = [layer for layer in detector.modules() if isinstance(layer, torch.nn.LayerNorm)]
    norms = {id(weight): weight for layer in layers for weight in layer.parameters()}
    others = [weight for weight in detector.parameters() if id(weight) not in norms]
    groups = [{"params": others, "weight_decay": decay}, {"params": [*norms.values()], "weight_decay": 0.0}]
    return torch.optim.AdamW(groups)


def share(step: int, total: int, warmup: int) -> float:
    """Return the share of the rate at a step: up from a thousandth, then down by ten at each drop."""
    rise = min(1.0, FIRST + (1 - FIRST) * step / warmup) if warmup else 1.0
    return float(rise * 0.1 ** sum(step >= drop * total for drop in DROPS))

"""Fine-tuning: the encoder and a linear head are trained on labels, and the head names the class of each image.

The recipe of Kaiming He et al., "Masked Autoencoders Are Scalable Vision Learners", CVPR 2022, arXiv 2111.06377,
appendix A.1 and the authors' main_finetune.py, for ViT-B: 100 epochs, AdamW, the base rate times the batch over 256,
layer decay 0.65, drop path, mixup and CutMix, smoothing, RandAugment, random erasing, the mean of the patches and then
the norm. For ViT-L they have 50 epochs, lr 1e-3, layer decay 0.75 and drop path 0.2, for ViT-H drop path 0.3.
Deviations: the norm behind the mean begins with the weights of the encoder's final norm, and sine-cosine positions stay
fixed; RandAugment ends below magnitude 10; those of `supervised`. The number is that of the last step, not the best of
all epochs, which the authors choose on val.
"""

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, Literal

from selfsup.evaluator import Evaluator, Features, Metric, Score, check
from selfsup.knob import Choice, Knobs, Range, knob


class Finetune(Evaluator):
    """Top-1 of the encoder after training with labels; of the untrained one, of training from scratch."""

    reads, classifies = "logits", True
    metrics = MappingProxyType({"top1": Metric()})

    class Hyper(Knobs):
        epochs: float = knob(
            100.0, "passes over the labelled training samples", sweep=Choice(50.0, 100.0), gt=0, le=1e6
        )
        batch: int = knob(1024, "samples a step, over all workers", symbol="B", gt=0)
        accumulate: int = knob(1, "pieces that a worker's batch is worked through in, to save memory", ge=1)
        lr: float = knob(5e-4, "learning rate at batch 256", symbol="η", sweep=Range(1e-4, 4e-3, log=True), gt=0)
        layer_decay: float = knob(
            0.65, "rate of a layer, as a share of the next one's", sweep=Range(0.5, 1.0), gt=0, le=1
        )
        weight_decay: float = knob(0.05, "AdamW's", symbol="λ", ge=0)
        drop_path: float = knob(0.1, "share of residual branches left out", sweep=Choice(0.0, 0.1, 0.2), ge=0, lt=1)
        warmup: float = knob(5.0, "epochs in which the rate rises", ge=0, le=1e6)
        min_lr: float = knob(1e-6, "where its cosine ends", ge=0)
        mixup: float = knob(0.8, "α of the weights by which pairs are mixed; 0: none are", ge=0)
        cutmix: float = knob(1.0, "α of the areas that a pair exchanges, in half of the steps; 0: none", ge=0)
        smoothing: float = knob(0.1, "share of the truth that all classes share", ge=0, lt=1)
        rand_augment: int = knob(9, "mean magnitude of RandAugment, of 10; 0: none", ge=0, le=10)
        rand_augment_std: float = knob(0.5, "deviation of that magnitude", ge=0, le=100)
        erasing: float = knob(0.25, "share of images with a box of noise", ge=0, le=1)
        crop_min: float = knob(0.08, "smallest crop, as a share of the image", gt=0, le=1)
        head_std: float = knob(2e-5, "deviation of the head's first weights", ge=0)
        pool: Literal["cls", "mean", "mean_norm"] = knob("mean_norm", "feature of a plain ViT, as backbone.pool")

    def __init__(self, hyper: Hyper) -> None:
        self.hyper = hyper

    @classmethod
    def training(cls, hyper: Hyper) -> Mapping[str, Any]:
        views = ("mixup", "cutmix", "smoothing", "rand_augment", "rand_augment_std", "erasing", "crop_min", "head_std")
        optim = {name: getattr(hyper, name) for name in ("lr", "layer_decay", "weight_decay", "min_lr")}
        warmup = {"warmup": {"epochs": hyper.warmup}} if hyper.warmup else {}
        return {
            "method": "supervised",
            "hyper": {name: getattr(hyper, name) for name in views},
            "backbone": {"drop_path": hyper.drop_path, "pool": hyper.pool},
            "optim": {"name": "adamw", "betas": (0.9, 0.999), **optim, **warmup},
            "train": {"duration": {"epochs": hyper.epochs}, "batch": hyper.batch, "accumulate": hyper.accumulate},
        }

    def run(self, features: Features, *, seed: int, device: str = "cpu") -> Iterator[tuple[str, Score]]:  # noqa: ARG002
        check(features, learns=False)
        yield "top1", features.hits((features.val + features.handicap).argmax(1))

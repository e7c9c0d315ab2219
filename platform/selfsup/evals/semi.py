"""Semi-supervised fine-tuning: the encoder and a linear head are trained on the labels of a part of train.

The protocol of Ting Chen et al., "A Simple Framework for Contrastive Learning of Visual Representations", ICML 2020,
arXiv 2002.05709, section 6, on 1 or 10 % of the labels, as many of each class, with the settings of VISSL's benchmark
(semi_supervised/imagenet1k): 70 epochs of SGD with Nesterov's momentum, the rate divided by ten after 30, no decay.
Deviations: the part is drawn by the seed, and is the first split of `lowshot`, where the authors have a list of
ImageNet; a share is the nearest whole number of samples per class; an epoch's last batch is filled up, not left out.
"""

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

from selfsup.evaluator import Evaluator, Features, Few, Metric, Score, check
from selfsup.few import shared
from selfsup.knob import Choice, Knobs, Range, knob


class Semi(Evaluator):
    """Top-1 of the encoder after training with a share of the labels; of the untrained one, from scratch."""

    reads, classifies = "logits", True
    metrics = MappingProxyType({"top1": Metric()})

    class Hyper(Knobs):
        share: float = knob(0.1, "of the labelled training samples", sweep=Choice(0.01, 0.1), gt=0, le=1)
        epochs: float = knob(70.0, "passes over these", gt=0, le=1e6)
        batch: int = knob(256, "samples a step, over all workers", symbol="B", gt=0)
        accumulate: int = knob(1, "pieces that a worker's batch is worked through in, to save memory", ge=1)
        lr: float = knob(0.05, "learning rate at batch 256", symbol="η", sweep=Range(1e-3, 1.0, log=True), gt=0)
        drop: float = knob(3 / 7, "share of training after which the rate is a tenth", gt=0, lt=1)
        weight_decay: float = knob(0.0, "SGD's", symbol="λ", ge=0)
        crop_min: float = knob(0.08, "smallest crop, as a share of the image", gt=0, le=1)

    def __init__(self, hyper: Hyper) -> None:
        self.hyper = hyper

    @classmethod
    def training(cls, hyper: Hyper) -> Mapping[str, Any]:
        rates = {"lr": hyper.lr, "drops": (hyper.drop,), "weight_decay": hyper.weight_decay}
        return {
            "method": "supervised",
            "hyper": {"crop_min": hyper.crop_min},
            "optim": {"name": "sgd", "momentum": 0.9, "nesterov": True, **rates},
            "train": {"duration": {"epochs": hyper.epochs}, "batch": hyper.batch, "accumulate": hyper.accumulate},
            "stream": {"remainder": "wrap"},
            "share": hyper.share,
        }

    @classmethod
    def lacks(cls, hyper: Hyper, labelled: int, classes: int) -> Few | None:
        if shared(hyper.share, labelled, classes):
            return None
        train = f"train has {labelled} labelled samples of {classes} classes"
        return Few("share", f"{hyper.share:g} is less than one sample of each class: {train}; set a larger one")

    def run(self, features: Features, *, seed: int, device: str = "cpu") -> Iterator[tuple[str, Score]]:  # noqa: ARG002
        check(features, learns=False)
        yield "top1", features.hits((features.val + features.handicap).argmax(1))

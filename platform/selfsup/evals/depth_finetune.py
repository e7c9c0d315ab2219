"""Depth by fine-tuning: the encoder and a linear layer on its tokens are trained on maps of depth.

Head, loss and errors are those of `depth`, which is DINOv2's linear protocol (arXiv 2304.07193); the training is that
of an MAE ViT-B on NYU in Roman Bachmann et al., "MultiMAE: Multi-modal Multi-task Masked Autoencoders", ECCV 2022,
arXiv 2204.01678, and its authors' ft_nyu_2000e_mae-b: 2000 epochs, AdamW at 1e-4 with decay 1e-4, layer decay 0.75, a
warm-up of 100 epochs; batches of 128.

Deviations: a linear layer in place of DPT's head, and DINOv2's loss in place of the reverse Huber; crops of a share of
the image and of either shape, magnified up to 1.5 times a side, by which depths are divided (arXiv 1406.2283), and no
change of colors; whole images at test, squashed to the encoder's size.
"""

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

from selfsup.evaluator import Evaluator, Features, Metric, Score, check_predicted
from selfsup.knob import Choice, Knobs, Range, knob


class DepthFinetune(Evaluator):
    """Error of depth in meters after training the encoder on maps of it; of the untrained one, from scratch."""

    reads, target = "logits", "depth"
    metrics = MappingProxyType(
        {
            "rmse": Metric(unit="m", better="min"),
            "abs_rel": Metric(unit="", better="min", headline=False),
            "delta1": Metric(headline=False),
        }
    )

    class Hyper(Knobs):
        bins: int = knob(256, "bins of depth", ge=2)
        most: float = knob(10.0, "meters of the last bin; pixels beyond it are left out", gt=0.001)
        epochs: float = knob(2000.0, "passes over the training samples", gt=0, le=1e6)
        batch: int = knob(128, "samples a step, over all workers", symbol="B", gt=0)
        accumulate: int = knob(1, "pieces that a worker's batch is worked through in, to save memory", ge=1)
        lr: float = knob(1e-4, "learning rate", symbol="η", sweep=Range(1e-5, 1e-3, log=True), gt=0)
        layer_decay: float = knob(
            0.75, "rate of a layer, as a share of the next one's", sweep=Range(0.5, 1.0), gt=0, le=1
        )
        weight_decay: float = knob(1e-4, "AdamW's", symbol="λ", ge=0)
        drop_path: float = knob(0.0, "share of residual branches left out", sweep=Choice(0.0, 0.1, 0.2), ge=0, lt=1)
        warmup: float = knob(100.0, "epochs in which the rate rises", ge=0, le=1e6)
        crop_min: float = knob(0.44, "smallest crop, as a share of the image", gt=0, le=1)

    def __init__(self, hyper: Hyper) -> None:
        self.hyper = hyper

    @classmethod
    def training(cls, hyper: Hyper) -> Mapping[str, Any]:
        optim = {name: getattr(hyper, name) for name in ("lr", "layer_decay", "weight_decay")}
        rise = {"warmup": {"epochs": hyper.warmup}} if hyper.warmup else {}
        return {
            "method": "dense.depth_estimator",
            "hyper": {name: getattr(hyper, name) for name in ("bins", "most", "crop_min")},
            "backbone": {"drop_path": hyper.drop_path},
            "optim": {"name": "adamw", "betas": (0.9, 0.999), "lr_rule": "none", **optim, **rise},
            "train": {"duration": {"epochs": hyper.epochs}, "batch": hyper.batch, "accumulate": hyper.accumulate},
        }

    def run(self, features: Features, *, seed: int, device: str = "cpu") -> Iterator[tuple[str, Score]]:  # noqa: ARG002
        import torch

        from selfsup.parts.depth_bins import DepthBins

        bins = DepthBins(self.hyper.bins, self.hyper.most)
        in_range = f"has a depth below {self.hyper.most:g} m; set a larger most"
        pairs = zip(*check_predicted(features, bins.known, in_range), strict=True)
        errors = [bins.errors(*(torch.as_tensor(one) for one in pair)) for pair in pairs]
        rmse, abs_rel, delta1 = torch.stack(errors).nanmean(0).tolist()
        yield from (("rmse", rmse), ("abs_rel", abs_rel), ("delta1", 100 * delta1))

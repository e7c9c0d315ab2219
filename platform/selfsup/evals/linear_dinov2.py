"""DINOv2's linear classification of frozen features: a grid of rates, blocks and poolings, all heads in one pass.

The protocol of Maxime Oquab et al., "DINOv2: Learning Robust Visual Features without Supervision", TMLR 2024, arXiv
2304.07193, as in the authors' eval/linear.py: thirteen rates, scaled to the batch, by the class tokens of the last
block or of the last four, without or with the mean of the last patches; small random weights, no normalization, SGD
with momentum 0.9 and no weight decay, half a cosine to zero, ten epochs of batches of 1024. Deviations: features are
embedded once, without augmentation or of `views` crops; all heads of one input begin at one draw; training is longer
where samples are few; the head is chosen by the lowest cross-entropy on a tenth of train on which none is trained, not
by the accuracy on val, and is reported as it is, not trained again on that tenth. Raw samples, which have one feature,
are one input.
"""

import math
from collections.abc import Iterator
from functools import partial
from itertools import product
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, NamedTuple

from selfsup.errors import DataError
from selfsup.evaluator import Evaluator, Features, Few, Metric, Score, all_positive, check, nothing_held_out
from selfsup.feature_choice import FeatureChoice, Pooling
from selfsup.knob import Knobs, knob

if TYPE_CHECKING:
    from torch import Tensor

    from selfsup.parts.linear_heads import Heads

Input = tuple[int, bool]  # the last blocks whose class tokens are read, and whether the mean of the patches is, too


class ChosenHead(NamedTuple):
    """The head chosen, G = 1, its input, the columns that this is in the features, and its learning rate."""

    head: "Heads"
    input: Input
    columns: slice
    lr: float


class LinearDINOv2(Evaluator):
    """Top-1 of the head with the lowest loss on held-out training samples; rate, blocks and pooling are beside it.

    cls_mean is 1 where the mean of the patches was read beside class tokens, else 0.
    """

    classifies = True
    metrics = MappingProxyType(
        {"top1": Metric()}
        | {name: Metric(unit="", better=None, headline=False) for name in ("lr", "blocks", "cls_mean")}
    )
    cheap = MappingProxyType({"steps": 50})

    class Hyper(Knobs):
        lrs: tuple[float, ...] = knob(
            (1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1),
            "learning rates to choose from, at batch 256; scaled to the batch",
            min_length=1,
        )
        blocks: tuple[int, ...] = knob((1, 4), "numbers of last blocks to choose from", min_length=1)
        features: tuple[Literal["cls", "cls_mean"], ...] = knob(
            ("cls", "cls_mean"), "class tokens, without or with the mean of the last patches", min_length=1
        )
        epochs: int = knob(10, "passes over the training features", ge=1)
        steps: int = knob(200, "at least, in more epochs where samples are few", ge=1)
        batch: int = knob(1024, "samples per step", ge=1)
        views: int = knob(0, "augmented views of each sample, trained on in turn; 0: the sample as it is", ge=0)

        _lrs = all_positive("lrs", "learning rate")
        _blocks = all_positive("blocks", "number of blocks")

    def __init__(self, hyper: Hyper) -> None:
        self.hyper = hyper

    @classmethod
    def reads_of(cls, hyper: Hyper) -> FeatureChoice:
        """Return the feature that has all inputs in it: class tokens, the last block's at the end, then the mean."""
        kind: Pooling = "cls_mean" if "cls_mean" in hyper.features else "cls"
        return FeatureChoice(kind, max(hyper.blocks), views=hyper.views)

    @classmethod
    def lacks(cls, hyper: Hyper, labelled: int, classes: int) -> Few | None:  # noqa: ARG003
        return nothing_held_out("a head", labelled)

    def run(self, features: Features, *, seed: int, device: str = "cpu") -> Iterator[tuple[str, Score]]:
        import torch

        check(features)
        if few := self.lacks(self.hyper, len(features.train), features.classes):
            raise DataError(few.message)
        fit = self.fit(features, seed=seed, device=device)
        val = torch.as_tensor(features.val[:, fit.columns], device=device)
        yield "top1", features.hits(fit.head.guesses(val, features.handicap))
        yield "lr", fit.lr
        yield "blocks", float(fit.input[0])
        yield "cls_mean", float(fit.input[1])

    def fit(self, features: Features, *, seed: int, device: str = "cpu") -> ChosenHead:
        """Train every head on nine tenths of train, choose on the last tenth. Reads nothing of val."""
        import torch

        from selfsup.parts.linear_heads import begin, descend, held_out, passes

        draw = torch.Generator().manual_seed(seed)  # on the CPU, so that every device sees the same split and order
        left_out, rest = held_out(len(features.train), draw)
        like, label = (torch.as_tensor(part, device=device) for part in (features.train[:1], features.train_label))
        lrs, inputs = sorted(self.hyper.lrs), self.inputs(features)
        heads = [begin(like[:, part].shape[1], len(lrs), features.classes, like, draw) for part in inputs.values()]
        total = max(self.hyper.epochs * math.ceil(len(rest) / self.hyper.batch), self.hyper.steps)
        steps = passes(features.tables, label, rest, self.hyper.batch, total, draw)
        rates = like.new_tensor(lrs) * self.hyper.batch / 256
        descend(list(zip(inputs.values(), heads, strict=True)), steps, rates, total)
        losses = [
            own.losses(features.train, label, left_out, partial(of_columns, part))
            for own, part in zip(heads, inputs.values(), strict=True)
        ]
        number, head = divmod(int(torch.stack(losses).argmin()), len(lrs))
        chosen, columns = list(inputs.items())[number]
        return ChosenHead(heads[number].alone(head), chosen, columns, lrs[head])

    def inputs(self, features: Features) -> dict[Input, slice]:
        """Return the columns of each input; all for features that are one vector of an encoder, or raw samples."""
        width, most = features.train.shape[1], max(self.hyper.blocks)
        if features.parts == 1:
            return {(1, False): slice(0, width)}
        dim, means = width // features.parts, [name == "cls_mean" for name in sorted({*self.hyper.features})]
        grid = product(sorted({*self.hyper.blocks}), means)
        return {(blocks, mean): slice((most - blocks) * dim, (most + mean) * dim) for blocks, mean in grid}


def of_columns(columns: slice, value: "Tensor") -> "Tensor":
    """(B, F) -> (B, D): what an input is of features"""
    return value[:, columns]

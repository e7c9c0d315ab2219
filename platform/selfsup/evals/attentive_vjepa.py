"""V-JEPA's attentive classification of frozen tokens: a transformer block, whose query pools them, trained by AdamW.

The protocol of Adrien Bardes et al., "Revisiting Feature Prediction for Learning Visual Representations from Video"
(V-JEPA), TMLR 2024, arXiv 2404.08471: one block of cross-attention with an MLP, one query, a rate of 0.001 that falls
to zero along half a cosine without warm-up, a weight decay of 0.001, none of biases, 20 epochs. Mido Assran et al.,
"V-JEPA 2", arXiv 2506.09985, put three blocks of self-attention before it and train about twenty such probes at once,
which is `depth: 4` with several `lrs` and `weight_decays`. Such a probe measures itself more than `attentive` does.

Deviations: tokens are embedded once, without augmentation, or with crops and flips alone by `views`; batches of 128;
more epochs where samples are few; among several probes the one is reported whose cross-entropy is lowest on a tenth of
train on which none is trained, never on val; a single one is trained on all of train.
"""

import math
from collections.abc import Iterator, Mapping
from itertools import product
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from selfsup.errors import DataError
from selfsup.evaluator import (
    Evaluator,
    Features,
    Few,
    Metric,
    Score,
    all_positive,
    check,
    none_negative,
    nothing_held_out,
)
from selfsup.feature_choice import TokenViewKnobs
from selfsup.knob import knob

if TYPE_CHECKING:
    from torch import Generator, Tensor
    from torch.optim import AdamW

    from selfsup.parts.attentive_classifier import AttentiveClassifier


class AttentiveVJEPA(Evaluator):
    """Top-1 of a block of cross-attention; rate and decay are beside it where they were chosen among several."""

    reads, classifies = "tokens", True
    metrics = MappingProxyType(
        {
            "top1": Metric(),
            "lr": Metric(unit="", better=None, headline=False),
            "weight_decay": Metric(unit="", better=None, headline=False),
        }
    )

    class Hyper(TokenViewKnobs):
        depth: int = knob(1, "transformer blocks, the last of which pools; V-JEPA 2: 4", ge=1, le=100)
        lrs: tuple[float, ...] = knob((1e-3,), "learning rates to choose from", min_length=1)
        weight_decays: tuple[float, ...] = knob((1e-3,), "weight decays to choose from", min_length=1)
        epochs: int = knob(20, "passes over the training tokens", ge=1)
        steps: int = knob(200, "at least, in more epochs where samples are few", ge=1)
        batch: int = knob(128, "samples per step", ge=1)
        head_width: int = knob(64, "channels of a head of attention, or the next more that divide a feature", ge=1)

        _positive = all_positive("lrs", "learning rate")
        _not_negative = none_negative("weight_decays", "weight decay")

    def __init__(self, hyper: Hyper) -> None:
        self.hyper = hyper

    @classmethod
    def lacks(cls, hyper: Hyper, labelled: int, classes: int) -> Few | None:  # noqa: ARG003
        return nothing_held_out("a learning rate", labelled) if len(grid(hyper)) > 1 else None

    @classmethod
    def yields(cls, hyper: Hyper) -> Mapping[str, Metric]:
        given = () if len(grid(hyper)) > 1 else ("lr", "weight_decay")
        return {name: metric for name, metric in cls.metrics.items() if name not in given}

    def run(self, features: Features, *, seed: int, device: str = "cpu") -> Iterator[tuple[str, Score]]:
        import torch

        from selfsup.parts.linear_heads import read

        check(features)
        if few := self.lacks(self.hyper, len(features.train), features.classes):
            raise DataError(few.message)
        probe, (lr, decay) = self.fit(features, seed=seed, device=device)
        guess = []
        with torch.inference_mode():
            for rows in torch.split(torch.arange(len(features.val)), self.hyper.batch):
                logits = probe(read(features.val, rows, device)).cpu().numpy()
                if not np.isfinite(logits).all():
                    raise DataError("evaluation: the attentive probe diverged; set a smaller lr")
                guess.append((logits + features.handicap).argmax(1))
        yield "top1", features.hits(np.concatenate(guess))
        if len(grid(self.hyper)) > 1:
            yield from (("lr", lr), ("weight_decay", decay))

    def fit(
        self, features: Features, *, seed: int, device: str = "cpu"
    ) -> tuple["AttentiveClassifier", tuple[float, float]]:
        """Train every probe; return the one chosen, with its rate and decay. Reads nothing of val."""
        import torch

        draw = torch.Generator().manual_seed(seed)  # on the CPU, so that every device sees the same split and order
        choices, number = grid(self.hyper), len(features.train)
        order = torch.randperm(number, generator=draw)
        left_out, rest = order.tensor_split([math.ceil(number / 10) if len(choices) > 1 else 0])
        label = torch.as_tensor(features.train_label, device=device)
        probes = self.begin(features, len(choices), draw, device)
        self.descend(probes, choices, features, label, rest, draw)
        best = int(self.losses(probes, features, label, left_out).argmin()) if len(choices) > 1 else 0
        return probes[best], choices[best]

    def begin(self, features: Features, number: int, draw: "Generator", device: str) -> list["AttentiveClassifier"]:
        """Return probes that all begin at one draw."""
        from copy import deepcopy

        import torch

        from selfsup.parts.attentive_classifier import AttentiveClassifier, heads_of

        dim = features.train.shape[2]
        heads = heads_of(dim, self.hyper.head_width)
        with torch.random.fork_rng(devices=[]):  # torch's layers draw weights that `begin` replaces
            probe = AttentiveClassifier(dim, heads, self.hyper.depth, features.classes)
        probe.begin(draw)
        probe = probe.to(torch.as_tensor(features.train[:1], device=device))
        return [deepcopy(probe) for _ in range(number)]

    def descend(
        self,
        probes: list["AttentiveClassifier"],
        choices: list[tuple[float, float]],
        features: Features,
        label: "Tensor",
        rest: "Tensor",
        draw: "Generator",
    ) -> None:
        """Train probes in place, each with its rate and decay, on the samples `rest`, which are read once for all."""
        import torch

        from selfsup.parts.linear_heads import passes

        optimizers = [adamw(probe, decay) for probe, (_, decay) in zip(probes, choices, strict=True)]
        total = max(self.hyper.epochs * math.ceil(len(rest) / self.hyper.batch), self.hyper.steps)
        for step, (tokens, own) in enumerate(passes(features.tables, label, rest, self.hyper.batch, total, draw)):
            share = 0.5 + 0.5 * math.cos(math.pi * step / total)
            for probe, optimizer, (lr, _) in zip(probes, optimizers, choices, strict=True):
                for group in optimizer.param_groups:
                    group["lr"] = lr * share
                optimizer.zero_grad()
                torch.nn.functional.cross_entropy(probe(tokens), own).backward()  # type: ignore[no-untyped-call]
                optimizer.step()

    def losses(
        self, probes: list["AttentiveClassifier"], features: Features, label: "Tensor", rows: "Tensor"
    ) -> "Tensor":
        """-> (G,): the summed cross-entropy of each probe on these samples, infinite where it is none"""
        import torch

        from selfsup.parts.linear_heads import read

        total = torch.zeros(len(probes), device=label.device)
        with torch.inference_mode():
            for part in torch.split(rows, self.hyper.batch):
                tokens, own = read(features.train, part, str(label.device)), label[part.to(label.device)]
                logits = [probe(tokens) for probe in probes]
                total += torch.stack([torch.nn.functional.cross_entropy(row, own, reduction="sum") for row in logits])
        return total.nan_to_num(math.inf)


def grid(hyper: AttentiveVJEPA.Hyper) -> list[tuple[float, float]]:
    """Return the rates and decays to choose from."""
    return list(product(sorted(hyper.lrs), sorted(hyper.weight_decays)))


def adamw(probe: "AttentiveClassifier", decay: float) -> "AdamW":
    """Return AdamW, which leaves biases and norms undecayed."""
    import torch

    weights, others = ([w for w in probe.parameters() if (w.ndim > 1) == is_weight] for is_weight in (True, False))
    return torch.optim.AdamW([{"params": weights, "weight_decay": decay}, {"params": others, "weight_decay": 0.0}])

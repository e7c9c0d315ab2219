"""Attentive classification of frozen tokens: one learned query pools them, a grid of rates and decays at once.

The pooling of Alaaeldin El-Nouby et al., "Scalable Pre-training of Large Autoregressive Image Models" (AIM), ICML 2024,
arXiv 2401.08541: standardised tokens, keys and values without bias, one query, then a linear layer. It is trained as in
Timothée Darcet et al., "Cluster and Predict Latent Patches for Improved Masked Image Modeling" (CAPI), TMLR 2025, arXiv
2502.08769: ten rates by three weight decays, AdamW (0.9, 0.95), no decay of the bias that its linear layer has, warm-up
for a tenth of the steps, then half a cosine, batches of 128, a head of attention for 64 channels. CAPI's pooling is
AIM's with biases of keys and values, which softmax and the linear layer make idle; V-JEPA's, arXiv 2404.08471, adds an
MLP, V-JEPA 2's, arXiv 2506.09985, three blocks of self-attention, so that they (`attentive_vjepa`)
measure themselves more than the tokens.

Deviations: tokens are those of the last block, as CAPI's, or with `blocks: 6` the mean of six, as AIM's, each after the
final norm, which AIM leaves out; they are embedded once, without CAPI's crops and flips unless `views` asks for some,
and standardised over all samples, not over each batch; 20 epochs, V-JEPA's, or more where samples are few, for CAPI's
12,500 steps, which are for ImageNet's size; the probes of a grid begin at one draw; the lowest cross-entropy on a tenth
of train chooses, not the highest accuracy, and the probe chosen is not trained again on that tenth. Attention reads no
positions but those that the encoder wrote into its tokens: raw pixels are a bag of colors.

Keys and values of tokens are never made: the score of a token x for a query q is q·Kx = (Kᵀq)·x, and V is applied to
the weighted mean of tokens. This is the same function, with the same gradient, for 1/64 of the products.
"""

import math
from collections.abc import Iterator, Sequence
from itertools import product
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

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

BETAS, EPSILON = (0.9, 0.95), 1e-8  # of AdamW
STD = 0.02  # of the query at first


class Probes(NamedTuple):
    """G probes side by side, each of H heads of attention of d channels.

    query: (G, H, d). key, value: (G, H, d, D). weight: (G, H d, C). bias: (G, 1, C).
    """

    query: "Tensor"
    key: "Tensor"
    value: "Tensor"
    weight: "Tensor"
    bias: "Tensor"

    def logits(self, tokens: "Tensor") -> "Tensor":
        """(B, T, D) -> (G, B, C). No probe reads another's numbers: one that diverges turns NaN alone."""
        focus = (self.query[:, :, None] @ self.key).flatten(0, 2) / math.sqrt(self.query.shape[2])  # (G H, D)
        share = (tokens @ focus.T).softmax(1)  # (B, T, G H)
        mean = (share.mT @ tokens).movedim(1, 0).reshape(*self.query.shape[:2], *tokens.shape[::2])  # (G, H, B, D)
        pooled = (mean @ self.value.mT).movedim(1, 2).flatten(2)  # (G, B, H d)
        return pooled @ self.weight + self.bias


class TokenSet(NamedTuple):
    """Samples that are read as they are needed, from disk where tokens are mapped, and the scale to read them at.

    tokens: (N, T, D). label: (N,). mean, std: (D,), on the device of the probes. tables: tokens of views of the same
    samples, to be read epoch by epoch in turn.
    """

    tokens: NDArray[np.float32]
    label: "Tensor"
    mean: "Tensor"
    std: "Tensor"
    tables: Sequence[NDArray[np.float32]] = ()

    def of_epoch(self, epoch: int) -> "TokenSet":
        """Return the samples as they are seen in an epoch."""
        return self._replace(tokens=self.tables[epoch % len(self.tables)]) if self.tables else self

    def read(self, rows: "Tensor") -> tuple["Tensor", "Tensor"]:
        """(B,) -> standardised tokens (B, T, D), labels (B,)"""
        import torch

        tokens = torch.as_tensor(self.tokens[rows.numpy()]).to(self.mean.device)
        return (tokens - self.mean) / self.std, self.label[rows].to(self.mean.device)


class Fit(NamedTuple):
    """The probe chosen, G = 1, with its learning rate and weight decay, and the scale of its tokens: (D,) each."""

    probe: Probes
    lr: float
    decay: float
    mean: "Tensor"
    std: "Tensor"


class Attentive(Evaluator):
    """Top-1 of the probe with the lowest loss on held-out training samples; its rate and decay are reported beside it.

    A step holds numbers for a batch of tokens, (B, T, D), and for each probe and head of attention, (B, T + D, G H).
    """

    reads, classifies = "tokens", True
    metrics = MappingProxyType(
        {
            "top1": Metric(),
            "lr": Metric(unit="", better=None, headline=False),
            "weight_decay": Metric(unit="", better=None, headline=False),
        }
    )

    class Hyper(TokenViewKnobs):
        lrs: tuple[float, ...] = knob(
            (1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2),
            "learning rates to choose from, at batch 256; scaled to the batch",
            min_length=1,
        )
        weight_decays: tuple[float, ...] = knob((5e-4, 1e-3, 5e-2), "weight decays to choose from", min_length=1)
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
        return nothing_held_out("a learning rate", labelled)

    def run(self, features: Features, *, seed: int, device: str = "cpu") -> Iterator[tuple[str, Score]]:
        import torch

        check(features)
        if few := self.lacks(self.hyper, len(features.train), features.classes):
            raise DataError(few.message)
        fit = self.fit(features, seed=seed, device=device)
        val = TokenSet(features.val, torch.as_tensor(features.val_label), fit.mean, fit.std)
        with torch.inference_mode():
            parts = torch.split(torch.arange(len(features.val)), self.hyper.batch)
            logits = (fit.probe.logits(val.read(rows)[0])[0].cpu().numpy() for rows in parts)
            guess = np.concatenate([(part + features.handicap).argmax(1) for part in logits])
        yield "top1", features.hits(guess)
        yield "lr", fit.lr
        yield "weight_decay", fit.decay

    def fit(self, features: Features, *, seed: int, device: str = "cpu") -> Fit:
        """Train every probe on nine tenths of train, choose on the last tenth. Reads nothing of val."""
        import torch

        from selfsup.parts.linear_heads import held_out
        from selfsup.parts.moments import moments

        draw = torch.Generator().manual_seed(seed)  # on the CPU, so that every device sees the same split and order
        left_out, rest = held_out(len(features.train), draw)
        mean, std = moments(features.train, rest, device)
        train = TokenSet(features.train, torch.as_tensor(features.train_label), mean, std, features.tables)
        grid = list(product(sorted(self.hyper.lrs), sorted(self.hyper.weight_decays)))
        probes = self.begin(len(grid), train, features.classes, draw)
        self.descend(probes, grid, train, rest, draw)
        best = int(self.losses(probes, train, left_out).nan_to_num(math.inf).argmin())
        return Fit(Probes(*(weight[best : best + 1] for weight in probes)), *grid[best], mean, std)

    def begin(self, number: int, train: TokenSet, classes: int, draw: "Generator") -> Probes:
        """Draw what all probes begin with: a small query, the weights of torch's linear layers, no bias."""
        import torch

        from selfsup.parts.attentive_classifier import heads_of

        dim = len(train.mean)
        heads = heads_of(dim, self.hyper.head_width)
        query = STD * torch.randn(heads, dim // heads, generator=draw)
        shapes = (heads, dim // heads, dim), (heads, dim // heads, dim), (dim, classes)
        layers = [(2 * torch.rand(shape, generator=draw) - 1) / math.sqrt(dim) for shape in shapes]
        weights = query, *layers, torch.zeros(1, classes)
        return Probes(*(weight.to(train.mean).expand(number, *weight.shape).clone() for weight in weights))

    def descend(
        self, probes: Probes, grid: list[tuple[float, float]], train: TokenSet, rest: "Tensor", draw: "Generator"
    ) -> None:
        """Train G probes in place by AdamW, each with its rate and decay of the grid, on the samples `rest`."""
        import torch

        from selfsup.parts.linear_heads import batches

        lr, decay = train.mean.new_tensor(grid).mT  # (G,) each
        lr, decays = lr * self.hyper.batch / 256, Probes(decay, decay, decay, decay, torch.zeros_like(decay))
        averages = [(torch.zeros_like(weight), torch.zeros_like(weight)) for weight in probes]
        per_epoch = math.ceil(len(rest) / self.hyper.batch)
        total = max(self.hyper.epochs * per_epoch, self.hyper.steps)
        for step, rows in enumerate(batches(rest, self.hyper.batch, total, draw)):
            slopes = gradient(probes, *train.of_epoch(step // per_epoch).read(rows))
            for weight, slope, average, shrink in zip(probes, slopes, averages, decays, strict=True):
                adamw(weight, slope, average, step + 1, lr * schedule(step, total), shrink)

    def losses(self, probes: Probes, train: TokenSet, rows: "Tensor") -> "Tensor":
        """-> (G,): the mean cross-entropy of each probe on these samples"""
        import torch

        with torch.inference_mode():
            parts = [cross_entropy(probes, *train.read(part)) for part in torch.split(rows, self.hyper.batch)]
        return torch.cat(parts, 1).mean(1)


def cross_entropy(probes: Probes, tokens: "Tensor", label: "Tensor") -> "Tensor":
    """(B, T, D), (B,) -> (G, B)"""
    return -probes.logits(tokens).log_softmax(2)[:, range(len(label)), label]


def gradient(probes: Probes, tokens: "Tensor", label: "Tensor") -> tuple["Tensor", ...]:
    """(B, T, D), (B,) -> the gradient of each probe's mean cross-entropy, in the shapes of their weights"""
    import torch

    weights = [weight.detach().requires_grad_() for weight in probes]
    loss = cross_entropy(Probes(*weights), tokens, label).mean(1)  # (G,)
    slopes: tuple[Tensor, ...] = torch.autograd.grad(loss.sum(), weights)
    return slopes


def schedule(step: int, total: int) -> float:
    """Return the share of the rate at a step: from 0 to 1 in a tenth of them, both counted, then half a cosine to 0."""
    warmup = total // 10
    if step < warmup:
        return step / max(1, warmup - 1)
    return 0.5 + 0.5 * math.cos(math.pi * (step - warmup) / max(1, total - warmup - 1))


def adamw(
    weight: "Tensor", slope: "Tensor", average: tuple["Tensor", "Tensor"], t: int, rates: "Tensor", decay: "Tensor"
) -> None:
    """Change weights, (G, ...), in place by step t = 1, 2 ... of AdamW with these rates and decays, (G,) each.

    average: of slopes and of their squares, which are changed, too.
    """
    shape = -1, *(1,) * (weight.ndim - 1)
    rates, decay = rates.view(shape), decay.view(shape)
    mean, square = average
    mean.lerp_(slope, 1 - BETAS[0])
    square.lerp_(slope.square(), 1 - BETAS[1])
    scale = (square / (1 - BETAS[1] ** t)).sqrt_().add_(EPSILON)
    weight.mul_(1 - rates * decay).sub_(rates / (1 - BETAS[0] ** t) * mean / scale)

"""Linear heads on frozen features, trained side by side by SGD.

N: samples, B: of a batch, D: inputs, G: heads, C: classes. No head reads another's numbers: one whose rate is too high
turns NaN alone.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from selfsup.bounded import at_once
from selfsup.errors import DataError

MOMENTUM = 0.9
LOGITS = 2**25  # that are usually held at once: 128 MiB
Steps = Iterator[tuple[Tensor, Tensor]]  # (B, D) and (B,) of each


class Heads(NamedTuple):
    """G heads. weight: (D, G, C). bias: (G, C)."""

    weight: Tensor
    bias: Tensor

    def logits(self, value: Tensor) -> Tensor:
        """(N, D) -> (N, G, C)"""
        return (value @ self.weight.flatten(1)).view(-1, *self.bias.shape) + self.bias

    def slopes(self, value: Tensor, label: Tensor) -> "Heads":
        """(B, D), (B,) -> the gradient of each head's mean cross-entropy: softmax - 1 at the label"""
        error = self.logits(value).softmax(-1)
        error[range(len(label)), :, label] -= 1
        error /= len(label)
        return Heads((value.T @ error.flatten(1)).view(self.weight.shape), error.sum(0))

    def losses(
        self, table: NDArray[np.float32], label: Tensor, rows: Tensor, made: Callable[[Tensor], Tensor]
    ) -> Tensor:
        """(N, F) in memory or on disk, (N,), (B,) -> (G,): the mean cross-entropy of each head, infinite if it is none.

        A part of the samples `rows` is read at a time. made: (b, F) -> (b, D), what the heads see of them.
        """
        total = self.bias.new_zeros(len(self.bias))
        for part in torch.split(rows, at_once(LOGITS, self.bias.numel())):
            own = label[part.to(label.device)]
            logits = self.logits(made(read(table, part, str(label.device))))
            total -= logits.log_softmax(-1)[range(len(own)), :, own].sum(0)
        return (total / len(rows)).nan_to_num(math.inf)

    def alone(self, head: int) -> "Heads":
        """Return one of the heads: G = 1."""
        return Heads(self.weight[:, head : head + 1], self.bias[head : head + 1])

    def guesses(self, value: Tensor, handicap: NDArray[np.float32]) -> NDArray[np.int64]:
        """(N, D), (C,) -> (N,): the class of the largest logit, of one head, the handicap added to each.

        Raises DataError for a head that diverged.
        """
        if not (self.weight.isfinite().all() and self.bias.isfinite().all()):
            raise DataError("evaluation: the linear probe diverged; set a smaller lr")
        parts = torch.split(value, at_once(LOGITS, self.bias.numel()))
        more = torch.as_tensor(handicap).to(self.bias)
        guess: NDArray[np.int64] = (
            torch.cat([(self.logits(part)[:, 0] + more).argmax(1) for part in parts]).cpu().numpy()
        )
        return guess


def begin(inputs: int, heads: int, classes: int, like: Tensor, draw: Generator) -> Heads:
    """Return heads that all begin at one draw of small weights, and no bias. like: of their type and device."""
    weight = 0.01 * torch.randn(inputs, 1, classes, generator=draw)
    return Heads(weight.to(like).repeat(1, heads, 1), like.new_zeros(heads, classes))


def batches(rows: Tensor, size: int, number: int, draw: Generator) -> Iterator[Tensor]:
    """Yield so many batches of at most `size` samples, equal but for one: an epoch after another, each shuffled."""
    per_epoch = math.ceil(len(rows) / size)
    for step in range(number):
        if step % per_epoch == 0:
            parts = rows[torch.randperm(len(rows), generator=draw).to(rows.device)].tensor_split(per_epoch)
        yield parts[step % per_epoch]


def held_out(number: int, draw: Generator) -> tuple[Tensor, Tensor]:
    """Return the numbers of a tenth of so many samples, rounded up, and those of the others, as they are drawn.

    draw: on the CPU, so that every device sees the same split.
    """
    left_out, rest = torch.randperm(number, generator=draw).tensor_split([math.ceil(number / 10)])
    return left_out, rest


def read(table: NDArray[np.float32], rows: Tensor, device: str) -> Tensor:
    """(N, D) in memory or on disk, (B,) -> (B, D)"""
    return torch.as_tensor(table[rows.numpy()]).to(device)


def passes(
    tables: Sequence[NDArray[np.float32]], label: Tensor, rows: Tensor, size: int, number: int, draw: Generator
) -> Steps:
    """Yield features and labels of so many batches. tables: of the same samples, (N, D) each, epoch by epoch in turn.

    label: (N,), on the device of the probe. rows: the samples to train on, on the CPU.
    """
    per_epoch = math.ceil(len(rows) / size)
    for step, part in enumerate(batches(rows, size, number, draw)):
        table = tables[step // per_epoch % len(tables)]
        yield read(table, part, str(label.device)), label[part.to(label.device)]


def sgd(heads: Heads, speeds: Sequence[Tensor], slopes: Sequence[Tensor], rates: Tensor | float) -> None:
    """Change heads in place by a step of SGD with momentum. speeds: of each weight, changed, too. rates: (G, 1)."""
    for weight, speed, slope in zip(heads, speeds, slopes, strict=True):
        speed.mul_(MOMENTUM).add_(slope)
        weight -= rates * speed


def descend(parts: Sequence[tuple[slice, Heads]], steps: Steps, rates: Tensor, total: int) -> None:
    """Train heads in place, their rates falling to zero along half a cosine. parts: heads, and the inputs they read.

    rates: (G,), of the heads of each part.
    """
    speeds = [[torch.zeros_like(weight) for weight in heads] for _, heads in parts]
    for step, (value, label) in enumerate(steps):
        now = rates[:, None] * (0.5 + 0.5 * math.cos(math.pi * step / total))
        for (columns, heads), speed in zip(parts, speeds, strict=True):
            sgd(heads, speed, heads.slopes(value[:, columns], label), now)

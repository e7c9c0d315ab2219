"""LeJEPA, whose embeddings become Gaussian along random directions, at the settings of its recipe."""

import torch
from torch import Tensor, nn

from selfsup.batch import Batch
from selfsup.method import Method
from selfsup.parts.noise import gaussian

from .authors import adamw, copied, learn, named, trained, warm
from .ours import Trained
from .recipes import of_recipe

NAMES = {"backbone": "encoders.image", "projector": "projector"}


def along(method: Method, step: int) -> Tensor:
    """-> (16, 32): the directions of a step, of length 1, whose draws are the first's seed and the step's number."""
    drawn = gaussian(torch.tensor([[method.draws[0, 0].item(), step * 2.0**-24]], dtype=torch.float64), (16, 32))[0]
    return drawn / drawn.square().sum(dim=0).sqrt()


def sizes(name: str) -> float:
    """The rate of a weight at a decay of 0.9 a layer, for two blocks and the embedding."""
    if not name.startswith("backbone") or ".trunk.norm." in name:
        return 1.0
    return 0.9 ** (2 - int(name.split(".blocks.")[1][0])) if ".blocks." in name else 0.9**3


def lejepa(method: Method, batches: list[Batch]) -> Trained:
    """Characteristic functions as means of complex numbers, by the trapezoidal rule from -3 to 3."""
    student, t = copied(method, NAMES), torch.linspace(-3, 3, 33, dtype=torch.float64)
    gaussian, widths = torch.exp(-t * t / 2), torch.full((33,), 6 / 32, dtype=torch.float64)
    widths[[0, -1]] /= 2
    drawn = [along(method, step) for step in range(11)]

    def loss(student: nn.ModuleDict, _: nn.ModuleDict, batch: Batch, step: int) -> Tensor:
        pooled = torch.cat([student["backbone"].pooled(view.value) for view in batch.views])
        views = student["projector"](pooled).chunk(4)
        center = (views[0] + views[1]) / 2
        total = torch.zeros((), dtype=torch.float64)
        for z in views:
            c = torch.exp(1j * (z @ drawn[step])[:, :, None] * t).mean(dim=0)
            statistic = 8 * ((c - gaussian).abs().square() * gaussian * widths).sum(dim=1)
            total = total + (0.95 * (z - center).square().mean() + 0.05 * statistic.mean()) / 4
        return total

    clip = lambda: nn.utils.clip_grad_norm_(student.parameters(), 3.0)  # noqa: E731
    undecayed = ("cls_token", "pos_embed")
    decay = lambda _, name, weight: 0.05 * (weight.ndim > 1 and not name.endswith(undecayed))  # noqa: E731
    move = adamw(student, warm(5e-4 * 4, end=1e-6), decay, scale=sizes, clip=clip)
    losses, _ = learn(student, loss, batches, move)
    draws = torch.tensor([[method.draws[0, 0].item(), 10 * 2.0**-24]], dtype=torch.float64)
    return trained(losses, named(student, NAMES) | {"draws": draws})


LOOPS = {"lejepa": of_recipe("lejepa", lejepa, "vit")}

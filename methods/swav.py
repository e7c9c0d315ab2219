"""SwAV: each view predicts the balanced cluster assignment of another view of its image.

Caron, Misra, Mairal, Goyal, Bojanowski and Joulin, "Unsupervised learning of visual features by contrasting cluster
assignments", NeurIPS 2020, arXiv:2006.09882. Defaults are the paper's for ImageNet at 800 epochs of batch 4096, without
a queue; small batches want one: queue: 3840, and later than the prototypes: queue_begins: 0.075 of 200 epochs.

Deviations from the authors' code: small crops are blurred by a kernel of their own size, not of the large ones'; a
queue is full when it begins to count, where theirs begins empty and counts once it is full; a group of batch norm is of
every eighth GPU, not of neighbors; the constants of images are torchvision's there, but for red's deviation, 0.228.
"""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfsup.encoder import Encoder
from selfsup.errors import SpecError
from selfsup.knob import Choice, Knobs, Range, knob
from selfsup.method import Batch, Method, Out, ParamOptions, TrainInfo
from selfsup.parts import checks, dist, initial, multicrop, recipes
from selfsup.parts.bank import Queue
from selfsup.parts.clustering import cosines, swapped, usage
from selfsup.parts.heads import mlp
from selfsup.parts.sinkhorn import sinkhorn
from selfsup.sections import Setup
from selfsup.views import Views


@final
class SwAV(Method):
    """Two large crops are assigned to prototypes, all of which must be used alike; every other crop predicts that."""

    paper, family = "2006.09882", "clustering"
    packs = freezes = True
    initialize = staticmethod(initial.unit_residuals)
    least_batch = 256  # section 4.2
    queues: Any  # a Queue of each large crop, or none
    queued: Tensor  # () 1 once they count

    class Hyper(Knobs):
        prototypes: int = knob(3000, "clusters", symbol="K", sweep=Choice(300, 1000, 3000, 10000), gt=1)
        temperature: float = knob(0.1, "softmax temperature", symbol="τ", sweep=Range(0.05, 0.5, log=True), gt=0)
        epsilon: float = knob(0.05, "softness of the assignments", symbol="ε", sweep=Range(0.01, 0.1, log=True), gt=0)
        iterations: int = knob(3, "rounds that balance the assignments", sweep=Choice(1, 3, 10), ge=1, le=1000)
        queue: int = knob(0, "earlier samples that are assigned along with the batch", sweep=Choice(0, 3840), ge=0)
        queue_begins: float = knob(0.075, "share of training before it counts", sweep=Range(0.0, 0.5), ge=0, le=1)
        freeze: float = knob(0.00125, "share of training before prototypes move", sweep=Range(0.0, 0.05), ge=0, lt=1)
        hidden: int = knob(2048, "hidden channels of the projector", sweep=Choice(512, 2048, 4096), gt=0)
        dim: int = knob(128, "channels of the space of the prototypes", sweep=Choice(64, 128, 256), gt=0)
        crop_min: float = knob(0.14, **multicrop.CROP_MIN)
        local_crops: int = knob(6, sweep=Choice(0, 2, 4, 6, 8), **multicrop.LOCAL_CROPS)
        local_size: int = knob(96, **multicrop.LOCAL_SIZE)
        local_min: float = knob(0.05, **multicrop.LOCAL_MIN)
        local_max: float = knob(0.14, sweep=Range(0.1, 0.5), **multicrop.LOCAL_MAX)
        strength: float = knob(1.0, "strength of color jitter", symbol="s", sweep=Range(0.1, 1.0), ge=0, le=1)
        blur: float = knob(0.5, "share of views that are blurred", sweep=Choice(0.0, 0.5), ge=0, le=1)

    @classmethod
    def views(cls, hyper: Hyper) -> Views:
        return Views(recipes.swav(hyper))

    @classmethod
    def check(cls, hyper: Hyper, setup: Setup, info: TrainInfo | None = None) -> Iterator[SpecError]:  # noqa: ARG003
        yield from checks.whole_patches("local_size", hyper.local_size, setup.backbone)

    def __init__(self, hyper: Hyper, encoders: Mapping[str, Encoder], info: TrainInfo) -> None:
        super().__init__(hyper, encoders, info)
        self.projector = mlp(self.backbone.dim, hyper.hidden, hyper.dim, out="bias")
        self.prototypes = nn.Parameter(F.normalize(torch.randn(hyper.prototypes, hyper.dim), dim=1))
        self.queues = nn.ModuleList(Queue(hyper.queue, hyper.dim) for _ in range(2 if hyper.queue else 0))
        self.register_buffer("queued", torch.zeros(()))
        self.hyper, self.info = hyper, info

    def forward(self, batch: Batch) -> Out:
        z = self.projector(torch.cat(multicrop.pooled(self.backbone, batch.views)))
        scores = cosines(z, self.prototypes).view(len(batch.views), len(batch.sample), -1)
        codes = torch.stack([self._codes(scores[number], number) for number in range(2)])
        loss = swapped(scores, codes, temperature=self.hyper.temperature)
        large = F.normalize(z.detach().float(), dim=1).chunk(len(batch.views))[:2]
        aux = {f"z{number}": large[number] for number in range(len(self.queues))}
        return Out(loss, usage(F.softmax(scores[0] / self.hyper.temperature, dim=1)), aux)

    @torch.no_grad()
    def after_step(self, t: float, aux: Mapping[str, Tensor]) -> None:
        self.prototypes.copy_(F.normalize(self.prototypes, dim=1))
        for number, queue in enumerate(self.queues):
            queue.push(aux[f"z{number}"])
            due = t + 1 / self.info.num_steps >= self.hyper.queue_begins  # at the next step
            self.queued.copy_((queue.filled == len(queue.rows)) & due)

    def param_options(self, name: str, weight: Tensor) -> ParamOptions:  # noqa: ARG002
        return ParamOptions(frozen_until=self.hyper.freeze if name == "prototypes" else 0.0)

    @torch.no_grad()
    def _codes(self, scores: Tensor, number: int) -> Tensor:
        """(N, K) -> (N, K): of one large crop, among all samples of the batch and, once they count, of its queue."""
        balanced = partial(sinkhorn, epsilon=self.hyper.epsilon, iterations=self.hyper.iterations)
        if not self.queues:
            return balanced(scores)
        own = self.queues[number].rows[dist.rank() :: dist.world_size()]  # scored with the prototypes as they are now
        counts = self.queued > 0
        valid = torch.cat([counts.expand(len(own)), counts.new_ones(len(scores))])
        return balanced(torch.cat([cosines(own, self.prototypes), scores]), valid=valid)[len(own) :]

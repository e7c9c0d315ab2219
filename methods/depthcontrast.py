"""DepthContrast: a cloud finds itself among others, in another view of it, as points and as voxels.

Zhang, Girdhar, Joulin and Misra, "Self-supervised pretraining of 3D features on any point-cloud", ICCV 2021,
arXiv:2101.02691: MoCo's loss within each format and between the two, by momentum encoders and queues of each. Defaults
are those of the authors' code; how each format's views are cut, turned and moved are knobs of `input.points` and
`input.voxels`, and `towers.voxels` is the encoder of the latter.

Deviations from the authors' code: encoders are ViTs, of groups of points and of cubes of a dense grid that says where
points are, not PointNet++ and a sparse U-Net, whose keys of points are shuffled among GPUs, as batch norm needs. A
feature is what `pool` makes of their last block, not the largest values of one that is not the last. Views are the
nearest points to one, not cuboids with a hole, and of one number of points.
"""

from collections.abc import Iterator, Mapping
from itertools import product
from typing import Any, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfsup.batch import View
from selfsup.encoder import Encoder
from selfsup.errors import SpecError
from selfsup.knob import Choice, Knobs, Range, knob
from selfsup.method import Batch, Method, Out, TrainInfo
from selfsup.parts.bank import Queue
from selfsup.parts.contrastive import info_nce
from selfsup.parts.ema import ema_copy, ema_update
from selfsup.parts.heads import mlp
from selfsup.sections import Setup
from selfsup.views import Beside, Crop, Views


@final
class DepthContrast(Method):
    """A view of a cloud in either format finds other views of it, in both, among earlier clouds."""

    paper, family, backbones = "2101.02691", "contrastive", ("vit",)
    modalities, beside = ("points",), ("voxels",)
    heads: Any  # of each format, as what follows
    keys: Any
    key_heads: Any
    queues: Any

    class Hyper(Knobs):
        temperature: float = knob(0.1, "softmax temperature", symbol="τ", sweep=Range(0.05, 0.5, log=True), gt=0)
        queue: int = knob(131072, "keys of earlier samples", symbol="K", sweep=Choice(1024, 16384, 131072), gt=0)
        momentum: float = knob(0.999, "of the key encoders", symbol="m", sweep=Choice(0.9, 0.99, 0.999), ge=0, le=1)
        within: float = knob(0.5, "weight of the loss of each format by itself", sweep=Choice(0.0, 0.5, 1.0), ge=0)
        across: float = knob(0.5, "weight of the loss of each format by the other", sweep=Choice(0.0, 0.5, 1.0), ge=0)
        dim: int = knob(128, "channels of the space that views are compared in", sweep=Choice(64, 128, 256), gt=0)

    @classmethod
    def views(cls, hyper: Hyper) -> Views:  # noqa: ARG003
        return Views((Crop(), Crop(), Beside(field="voxels"), Beside(field="voxels")))

    @classmethod
    def check(cls, hyper: Hyper, setup: Setup, info: TrainInfo | None = None) -> Iterator[SpecError]:  # noqa: ARG003
        if not (hyper.within or hyper.across):
            yield SpecError("no loss has a weight; set one of the two above zero", "hyper.within", "hyper.across")

    def __init__(self, hyper: Hyper, encoders: Mapping[str, Encoder], info: TrainInfo) -> None:
        super().__init__(hyper, encoders, info)
        heads = {name: mlp(own.dim, own.dim, hyper.dim, norm=False, out="bias") for name, own in encoders.items()}
        self.heads, self.hyper = nn.ModuleDict(heads), hyper
        self.keys, self.key_heads = ema_copy(self.encoders), ema_copy(self.heads)
        self.queues = nn.ModuleDict({name: Queue(hyper.queue, hyper.dim) for name in encoders})

    def forward(self, batch: Batch) -> Out:
        queries = {view.modality: _embedded(view, self.encoders, self.heads) for view in batch.views[::2]}
        with torch.no_grad():
            made = {view.modality: _embedded(view, self.keys, self.key_heads) for view in batch.views[1::2]}
            keys = {name: F.normalize(key.float(), dim=1) for name, key in made.items()}
        losses = {
            (query, key): info_nce(queries[query], keys[key], self.queues[key].rows, temperature=self.hyper.temperature)
            for query, key in product(queries, keys)
        }
        within, across = self.hyper.within, self.hyper.across
        loss = torch.stack([(within if query == key else across) * own for (query, key), own in losses.items()]).sum()
        return Out(loss, {f"{query}_to_{key}_loss": own for (query, key), own in losses.items()}, aux=keys)

    def after_step(self, t: float, aux: Mapping[str, Tensor]) -> None:  # noqa: ARG002
        for name, queue in self.queues.items():
            queue.push(aux[name])
        ema_update(self.keys, self.encoders, self.hyper.momentum)
        ema_update(self.key_heads, self.heads, self.hyper.momentum)


def _embedded(view: View, encoders: Any, heads: Any) -> Tensor:
    """-> (B, dim): a view in the space that views are compared in. encoders, heads: of each format"""
    vectors: Tensor = heads[view.modality](encoders[view.modality].pooled(view.value))
    return vectors

"""DenseCL: MoCo v2's contrast between images, and between matching places of their feature maps.

Wang, Zhang, Shen, Kong and Li, "Dense contrastive learning for self-supervised visual pre-training", CVPR 2021,
arXiv:2011.09157. Defaults are the paper's for ImageNet at 200 epochs.

Deviations from the authors' code: keys are normalized in `split` groups that are interleaved, where their GPUs hold
parts that are shuffled anew at each step; queries in train.norm_groups, which stands for their GPUs. The head of whole
images begins as PyTorch's linear layers do, theirs by He's rule.
"""

from collections.abc import Iterator, Mapping
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor

from selfsup.encoder import Encoder
from selfsup.errors import SpecError
from selfsup.knob import Choice, Knobs, Range, knob
from selfsup.method import Batch, Method, Out, TrainInfo
from selfsup.parts import checks, initial, norms, recipes
from selfsup.parts.bank import Queue
from selfsup.parts.contrastive import info_nce
from selfsup.parts.ema import ema_copy, ema_update
from selfsup.parts.heads import mlp
from selfsup.parts.places import at_each, cosines, places
from selfsup.parts.tokens import grouped
from selfsup.sections import Setup
from selfsup.views import Views


@final
class DenseCL(Method):
    """Each place of a view is matched with the place of the other view that has the most similar features."""

    paper, family, backbones = "2011.09157", "contrastive", ("cnn",)
    initialize = staticmethod(initial.unit_residuals)
    weight: Tensor  # () of the dense loss, at present

    class Hyper(Knobs):
        temperature: float = knob(0.2, "softmax temperature", symbol="τ", sweep=Range(0.05, 0.5, log=True), gt=0)
        dense: float = knob(0.5, "weight of the dense loss", symbol="λ", sweep=Choice(0.1, 0.3, 0.5, 0.7), ge=0, le=1)
        begins: float = knob(0.0, "share of training before which the dense loss weighs nothing", ge=0, lt=1)
        queue: int = knob(65536, "keys of earlier samples", symbol="K", sweep=Choice(1024, 4096, 16384, 65536), gt=0)
        momentum: float = knob(0.999, "of the key encoder", symbol="m", sweep=Choice(0.9, 0.99, 0.999), ge=0, le=1)
        hidden: int = knob(2048, "hidden channels of both heads", sweep=Choice(512, 2048), gt=0)
        dim: int = knob(128, "channels of the space that views are compared in", sweep=Choice(64, 128, 256), gt=0)
        split: int = knob(8, "groups of samples by which keys are batch-normalized", ge=1)
        crop_min: float = knob(0.2, "smallest crop, as a share of the image", sweep=Range(0.05, 0.5), gt=0, le=1)
        blur: float = knob(0.5, "share of views that are blurred", sweep=Choice(0.0, 0.5), ge=0, le=1)

    @classmethod
    def views(cls, hyper: Hyper) -> Views:
        crop = recipes.moco(crop_min=hyper.crop_min, blur=hyper.blur)
        return Views((crop, crop))

    @classmethod
    def check(cls, hyper: Hyper, setup: Setup, info: TrainInfo | None = None) -> Iterator[SpecError]:  # noqa: ARG003
        yield from checks.whole_groups("split", hyper.split, setup.share)

    def __init__(self, hyper: Hyper, encoders: Mapping[str, Encoder], info: TrainInfo) -> None:
        super().__init__(hyper, encoders, info)
        widths = self.backbone.dim, hyper.hidden, hyper.dim
        self.projector, self.dense_projector = (mlp(*widths, norm=False, out="bias") for _ in range(2))
        self.key, self.key_projector = ema_copy(self.backbone), ema_copy(self.projector)
        norms.keep_whole(self.key)  # its groups are those of `split`, which are not the queries'
        self.key_dense_projector = ema_copy(self.dense_projector)
        self.queue, self.dense_queue = Queue(hyper.queue, hyper.dim), Queue(hyper.queue, hyper.dim)
        self.register_buffer("weight", torch.tensor(0.0 if hyper.begins else hyper.dense))
        self.hyper, self.step = hyper, 1 / info.num_steps

    def forward(self, batch: Batch) -> Out:
        features = places(self.backbone.spatial(batch.views[0].value))
        query, dense = self.projector(features.mean(1)), at_each(self.dense_projector, features)
        with torch.no_grad():
            others = grouped(batch.views[1].value, self.hyper.split, lambda view: places(self.key.spatial(view)))
            key, dense_key = self.key_projector(others.mean(1)), at_each(self.key_dense_projector, others)
            match = cosines(features, others).argmax(2, keepdim=True)  # (N, P, 1), eq. 4
            keys = {"keys": _unit(key), "dense_keys": _unit(dense_key.mean(1))}
            matched = _unit(dense_key).take_along_dim(match, dim=1)
        temperature = self.hyper.temperature
        whole = info_nce(query, keys["keys"], self.queue.rows, temperature=temperature)
        local = info_nce(dense.flatten(0, 1), matched.flatten(0, 1), self.dense_queue.rows, temperature=temperature)
        loss = (1 - self.weight) * whole + self.weight * local
        return Out(loss, {"global_loss": whole, "dense_loss": local}, aux=keys)

    def after_step(self, t: float, aux: Mapping[str, Tensor]) -> None:
        self.queue.push(aux["keys"])
        self.dense_queue.push(aux["dense_keys"])
        ema_update(self.key, self.backbone, self.hyper.momentum)
        ema_update(self.key_projector, self.projector, self.hyper.momentum)
        ema_update(self.key_dense_projector, self.dense_projector, self.hyper.momentum)
        self.weight.fill_(self.hyper.dense if t + self.step >= self.hyper.begins else 0.0)  # of the step to come


def _unit(x: Tensor) -> Tensor:
    return F.normalize(x.float(), dim=-1)

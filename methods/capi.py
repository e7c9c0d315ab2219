"""CAPI: a predictor names the clusters, found while it trains, in which an EMA teacher's patches are.

Darcet, Baldassarre, Oquab, Mairal and Bojanowski, "Cluster and predict latent patches for improved masked image
modeling", TMLR 2025, arXiv:2502.08769. Defaults are the authors' for ViT-L/14.

Deviations from the authors' code: the ViT is timm's, such as vit_large_patch16_dinov3, with a class token and four
registers, LayerNorm and LayerScale, there with 16 registers on the image's edge, RMSNorm and no scales; the predictor's
norms and turns are that ViT's; learning rate, decay and momentum end where their cosines of 1.25 times the training are
cut off, but bend otherwise; vectors do not decay.

B: batch, N: tokens, M: predicted ones, K: clusters, D: channels.
"""

from collections.abc import Iterator, Mapping
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfsup.encoder import TokenEncoder
from selfsup.errors import SpecError
from selfsup.inverseblock import InverseBlockMask
from selfsup.knob import Choice, Knobs, Range, knob
from selfsup.method import Batch, Method, Out, ParamOptions, TrainInfo
from selfsup.parts import checks, initial, latent
from selfsup.parts.clustering import usage
from selfsup.parts.cross_predictor import CrossPredictor
from selfsup.parts.ema import ema_copy, ema_update
from selfsup.parts.heads import Prototypes
from selfsup.parts.precision import no_autocast
from selfsup.parts.schedules import cosine, ramp
from selfsup.parts.sinkhorn import sinkhorn_by_place
from selfsup.sections import Setup
from selfsup.views import Crop, Views


@final
class CAPI(Method):
    """Clusters have a loss and a learning rate of their own; at each place all must be used alike by the batch."""

    paper, family, backbones = "2502.08769", "clustering", ("vit",)
    evaluated = "teacher"
    initialize = staticmethod(initial.even_drop_path)
    teacher: TokenEncoder

    class Hyper(Knobs):
        clusters: int = knob(16384, "clusters", symbol="K", sweep=Choice(1024, 4096, 16384), gt=1)
        temperature: float = knob(0.12, "of predictions", symbol="τ", sweep=Range(0.05, 0.5, log=True), gt=0)
        target_temperature: float = knob(0.06, "of clusters", sweep=Range(0.02, 0.2, log=True), gt=0)
        iterations: int = knob(3, "rounds that balance the clusters", sweep=Choice(1, 3, 10), ge=1, le=1000)
        mask_ratio: float = knob(0.65, "share of patches hidden from the encoder", sweep=Range(0.4, 0.9), gt=0, lt=1)
        asked: float = knob(0.05, "share of hidden ones that are predicted", sweep=Choice(0.05, 0.2, 1.0), gt=0, le=1)
        predictor_depth: int = knob(12, "blocks of the predictor", sweep=Choice(3, 6, 12), ge=1, le=1000)
        cluster_rate: float = knob(0.5, "times the learning rate, of the clusters", sweep=Choice(0.1, 0.5, 1.0), gt=0)
        cluster_decay: float = knob(0.1, "times the weight decay, of the clusters", ge=0)
        embed_scale: float = knob(0.2, "times the learning rate, of the patch embedding", sweep=Choice(0.2, 1.0), gt=0)
        momentum: float = knob(0.999, "of the teacher after its warm-up", sweep=Choice(0.99, 0.999), ge=0, le=1)
        momentum_end: float = knob(0.9999045, "of the teacher at the end", ge=0, le=1)
        momentum_warmup: float = knob(0.1, "share of training in which it falls from 1", ge=0, lt=1)
        crop_min: float = knob(0.6, "smallest crop, as a share of the image", sweep=Range(0.05, 1.0), gt=0, le=1)

    @classmethod
    def views(cls, hyper: Hyper) -> Views:
        return Views((Crop(scale=(hyper.crop_min, 1.0), mask=InverseBlockMask(hyper.mask_ratio, hyper.asked)),))

    @classmethod
    def check(cls, hyper: Hyper, setup: Setup, info: TrainInfo | None = None) -> Iterator[SpecError]:  # noqa: ARG003
        rule = InverseBlockMask(hyper.mask_ratio, hyper.asked)
        yield from checks.mask_leaves_both(rule, hyper.mask_ratio, setup.grid)

    def __init__(self, hyper: Hyper, encoders: Mapping[str, TokenEncoder], info: TrainInfo) -> None:
        super().__init__(hyper, encoders, info)
        self.hyper, dim = hyper, self.backbone.dim
        self.predictor = CrossPredictor(self.backbone, depth=hyper.predictor_depth)
        self.head = Prototypes(dim, hyper.clusters, lengths=True)
        self.clusters = nn.Linear(dim, hyper.clusters)
        nn.init.normal_(self.clusters.weight)
        nn.init.zeros_(self.clusters.bias)
        self.teacher = ema_copy(self.backbone)

    def forward(self, batch: Batch) -> Out:
        tokens, mask, numbers = latent.masked(batch)
        asked = numbers[:, 0]
        with torch.no_grad():
            features = self.teacher(tokens)[:, self.backbone.num_prefix :]
        with no_autocast(features):
            scores = self.clusters(F.normalize(features.float(), dim=2))
        codes = sinkhorn_by_place(scores, epsilon=self.hyper.target_temperature, iterations=self.hyper.iterations)
        logits = self.head(self.predictor(self.backbone(tokens, mask.keep), mask.keep, asked))
        wanted = codes.take_along_dim(asked[..., None], dim=1)
        predicted = self._entropy(wanted, logits)
        clustered = self._entropy(codes, scores)
        return Out(
            predicted + clustered, {"predicted": predicted, "clustered": clustered, **usage(wanted.flatten(0, 1))}
        )

    def after_step(self, t: float, aux: Mapping[str, Tensor]) -> None:  # noqa: ARG002
        hyper, begin = self.hyper, self.hyper.momentum_warmup
        if t < begin:
            momentum = ramp(t, 1.0, hyper.momentum, until=begin)
        else:
            momentum = cosine((t - begin) / (1 - begin), hyper.momentum, hyper.momentum_end)
        ema_update(self.teacher, self.backbone, momentum)

    def param_options(self, name: str, weight: Tensor) -> ParamOptions:  # noqa: ARG002
        if name.startswith("clusters."):
            return ParamOptions(lr_scale=self.hyper.cluster_rate, decay_scale=self.hyper.cluster_decay)
        return ParamOptions(lr_scale=self.hyper.embed_scale if "patch_embed" in name else 1.0)

    def _entropy(self, codes: Tensor, scores: Tensor) -> Tensor:
        """(B, M, K), (B, M, K) -> (): cross-entropy of scores with codes"""
        log_p = F.log_softmax(scores.float() / self.hyper.temperature, dim=2)
        return -(codes * log_p).sum(dim=2).mean()

"""MACRL: an image masked and augmented strongly finds itself masked weakly among others, and both are painted whole.

Yao, Desai and Palaniswami, "Masked contrastive representation learning", 2022, arXiv:2211.06012.

There is no authors' code, and of the paper its abstract and a summary alone could be read: two branches of an encoder
and a decoder, one with a higher mask ratio and stronger augmentation than the other; a contrast of the encoders'
features, with a projector and a memory of earlier ones; the absolute error of the decoders' outputs. All else is
decided here. One encoder and one decoder, MAE's (arXiv 2111.06377), serve both branches, and paint the hidden patches
of each view. Features are means of visible patches. As in MoCo v2 (arXiv 2003.04297), the strong branch is the query,
and a slowly moving copy of the encoder makes keys of the weak one.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor

from selfsup.encoder import TokenEncoder
from selfsup.errors import SpecError
from selfsup.knob import Choice, Knobs, Range, knob
from selfsup.masks import IndexMask, RandomMask
from selfsup.method import Batch, Method, Out, TrainInfo
from selfsup.parts import checks, decoder, recipes
from selfsup.parts.bank import Queue
from selfsup.parts.contrastive import info_nce
from selfsup.parts.decoder import Decoder
from selfsup.parts.ema import ema_copy, ema_update
from selfsup.parts.heads import mlp
from selfsup.parts.reconstruction import masked_view
from selfsup.parts.targets import PixelTarget
from selfsup.parts.tokens import Tokens
from selfsup.sections import Setup
from selfsup.views import Crop, Views


@final
class MACRL(Method):
    """The feature of an image from few of its patches, in other colors, is the one from more of them; both paint it."""

    paper, family, backbones = "2211.06012", "reconstruction", ("vit",)

    class Hyper(Knobs):
        mask_ratio: float = knob(
            0.75, "share of patches hidden in the strong branch", sweep=Range(0.4, 0.9), gt=0, lt=1
        )
        weak_mask_ratio: float = knob(
            0.5, "share of patches hidden in the weak branch", sweep=Range(0.1, 0.75), gt=0, lt=1
        )
        contrast: float = knob(1.0, "weight of the contrast of branches", sweep=Choice(0.1, 1.0), ge=0)
        temperature: float = knob(0.2, "softmax temperature", symbol="τ", sweep=Range(0.05, 0.5, log=True), gt=0)
        queue: int = knob(65536, "keys of earlier samples", symbol="K", sweep=Choice(1024, 4096, 16384, 65536), gt=0)
        momentum: float = knob(0.999, "of the key encoder", symbol="m", sweep=Choice(0.9, 0.99, 0.999), ge=0, le=1)
        dim: int = knob(128, "channels of the space that branches are compared in", sweep=Choice(64, 128, 256), gt=0)
        decoder_width: int = knob(512, **decoder.WIDTH)
        decoder_depth: int = knob(8, **decoder.DEPTH)
        decoder_heads: int = knob(16, **decoder.HEADS)
        norm_pix_loss: bool = knob(
            False, "paint each patch normalized by its own mean and deviation", sweep=Choice(False, True)
        )
        crop_min: float = knob(0.2, "smallest crop, as a share of the image", sweep=Range(0.05, 1.0), gt=0, le=1)

        _whole_heads = checks.whole_heads("decoder")

    @classmethod
    def views(cls, hyper: Hyper) -> Views:
        strong = replace(recipes.moco(crop_min=hyper.crop_min), mask=RandomMask(hyper.mask_ratio))
        weak = Crop(scale=(hyper.crop_min, 1.0), resample="bilinear", mask=RandomMask(hyper.weak_mask_ratio))
        return Views((strong, weak))

    @classmethod
    def check(cls, hyper: Hyper, setup: Setup, info: TrainInfo | None = None) -> Iterator[SpecError]:  # noqa: ARG003
        for name in ("mask_ratio", "weak_mask_ratio"):
            ratio = getattr(hyper, name)
            yield from checks.mask_leaves_both(RandomMask(ratio), ratio, setup.grid, knob=name)

    def __init__(self, hyper: Hyper, encoders: Mapping[str, TokenEncoder], info: TrainInfo) -> None:
        super().__init__(hyper, encoders, info)
        self.hyper = hyper
        width, depth, heads = hyper.decoder_width, hyper.decoder_depth, hyper.decoder_heads
        self.decoder = Decoder(self.backbone, width=width, depth=depth, heads=heads)
        self.target = PixelTarget(self.backbone, normalized=hyper.norm_pix_loss)
        self.projector = mlp(self.backbone.dim, self.backbone.dim, hyper.dim, norm=False, out="bias")
        self.key, self.key_projector = ema_copy(self.backbone), ema_copy(self.projector)
        self.queue = Queue(hyper.queue, hyper.dim)

    def forward(self, batch: Batch) -> Out:
        strong, weak = (masked_view(view) for view in batch.views)
        features = [self.backbone(tokens, mask.keep) for tokens, mask in (strong, weak)]
        painted = (self._error(features[0], *strong) + self._error(features[1], *weak)) / 2
        query = self.projector(self._pooled(features[0]))
        keys = self._keys(*weak)
        contrast = info_nce(query, keys, self.queue.rows, temperature=self.hyper.temperature)
        loss = painted + self.hyper.contrast * contrast
        return Out(loss, {"painted": painted, "contrast": contrast}, {"keys": keys})

    def after_step(self, t: float, aux: Mapping[str, Tensor]) -> None:  # noqa: ARG002
        self.queue.push(aux["keys"])
        ema_update(self.key, self.backbone, self.hyper.momentum)
        ema_update(self.key_projector, self.projector, self.hyper.momentum)

    def reconstruct(self, batch: Batch) -> Tensor:
        """-> (B, N, P): every patch of the strong branch as it is painted."""
        tokens, mask = masked_view(batch.views[0])
        decoded = self.decoder(self.backbone(tokens, mask.keep), mask)
        places = decoded.take_along_dim(mask.restore[..., None], dim=1)
        return self.target.pixels(self.decoder.paint(places).float(), tokens)

    def _error(self, features: Tensor, tokens: Tokens, mask: IndexMask) -> Tensor:
        """-> (): the absolute error of hidden patches, of which every sample has equally many"""
        hidden = self.decoder(features, mask)[:, mask.keep.shape[1] :]
        return F.l1_loss(self.decoder.paint(hidden).float(), self.target.of(tokens, mask.hide).float())

    @torch.no_grad()
    def _keys(self, tokens: Tokens, mask: IndexMask) -> Tensor:
        """-> (B, dim): unit vectors"""
        pooled = self._pooled(self.key(tokens, mask.keep))
        return F.normalize(self.key_projector(pooled).float(), dim=1)

    def _pooled(self, features: Tensor) -> Tensor:
        """(B, num_prefix + K, D) -> (B, D)"""
        return features[:, self.backbone.num_prefix :].mean(dim=1)

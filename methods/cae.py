"""CAE: a ViT encodes the visible patches; a regressor predicts its features of the others, a decoder their codes.

Chen, Ding, Wang, Xin, Mo, Wang, Han, Luo, Zeng and Wang, "Context autoencoder for self-supervised representation
learning", IJCV 2024, arXiv:2202.03026. The tokenizer is the spec's `teacher`, such as in1k/vqvae; the paper's is
DALL-E's dVAE. Defaults are the paper's for ViT-B/16.

Deviations from the authors' code: the aligned features are by the encoder as it is, as in the paper, where theirs is a
copy from before the last step; regressor and decoder leave out no branches. The last patches that are hidden, so that
all samples have equally many, are single ones, there of further rectangles. The tokenizer sees what the ViT sees, where
theirs sees the same crop at half the resolution, by another filter.

B: batch, N: tokens, K: visible tokens, M: hidden ones, P: values of a patch, D: channels.
"""

from collections.abc import Iterator, Mapping
from typing import final

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from selfsup.encoder import TokenEncoder
from selfsup.errors import SpecError
from selfsup.knob import Choice, Knobs, Range, knob
from selfsup.masks import FilledBlockMask, IndexMask
from selfsup.method import Batch, Method, Out, TrainInfo
from selfsup.parts import checks, initial
from selfsup.parts.heads import xavier_linears
from selfsup.parts.reconstruction import masked
from selfsup.parts.regressor import Regressor
from selfsup.parts.targets import CodeTarget
from selfsup.parts.tokens import Tokens
from selfsup.sections import Setup
from selfsup.views import Crop, Views


@final
class CAE(Method):
    """The encoder encodes alone: what is hidden is predicted in its space, and a decoder reads codes from that."""

    paper, family, backbones = "2202.03026", "reconstruction", ("vit",)
    separable = True
    learns_from = "codes"
    initialize = staticmethod(initial.cae)

    class Hyper(Knobs):
        mask_ratio: float = knob(0.5, "share of patches hidden from the encoder", sweep=Range(0.3, 0.8), gt=0, lt=1)
        alignment: float = knob(2.0, "weight of features like the encoder's", symbol="λ", sweep=Range(0.0, 4.0), ge=0)
        regressor_depth: int = knob(4, "blocks of the regressor", sweep=Choice(1, 2, 4), ge=1, le=1000)
        decoder_depth: int = knob(4, "transformer blocks of the decoder", sweep=Choice(1, 2, 4), ge=1, le=1000)
        scale: float = knob(0.1, "at first, of what the blocks of both add", gt=0)
        crop_min: float = knob(0.08, "smallest crop, as a share of the image", sweep=Range(0.05, 1.0), gt=0, le=1)

    @classmethod
    def views(cls, hyper: Hyper) -> Views:
        return Views((Crop(scale=(hyper.crop_min, 1.0), mask=FilledBlockMask(hyper.mask_ratio)),))

    @classmethod
    def check(cls, hyper: Hyper, setup: Setup, info: TrainInfo | None = None) -> Iterator[SpecError]:
        yield from checks.mask_leaves_both(FilledBlockMask(hyper.mask_ratio), hyper.mask_ratio, setup.grid)
        if info and info.teacher:
            yield from checks.a_code_a_token(info.teacher, setup)

    def __init__(self, hyper: Hyper, encoders: Mapping[str, TokenEncoder], info: TrainInfo) -> None:
        super().__init__(hyper, encoders, info)
        assert info.teacher, "it learns from a tokenizer"
        self.target, self.alignment = CodeTarget(info.teacher), hyper.alignment
        self.regressor = Regressor(self.backbone, depth=hyper.regressor_depth, scale=hyper.scale)
        dim, heads = self.backbone.dim, self.backbone.trunk.blocks[0].attn.num_heads
        self.decoder = nn.Sequential(
            *(Block(dim, heads, qkv_bias=True, init_values=hyper.scale) for _ in range(hyper.decoder_depth)),
            nn.LayerNorm(dim, eps=1e-6),
            nn.Linear(dim, self.target.values),
        )
        xavier_linears(self.decoder)

    def forward(self, batch: Batch) -> Out:
        tokens, mask = masked(batch)
        code = self.target.of(tokens, mask.hide)
        features, logits = self._predicted(tokens, mask)
        with torch.no_grad():
            own = self._encoded(tokens, mask.hide)
        codes, apart = self.target.loss(logits, code), F.mse_loss(features.float(), own.float())
        accuracy = (logits.argmax(dim=2) == code).float().mean()
        log = {"codes": codes, "alignment": apart, "code_accuracy": accuracy}
        return Out(codes + self.alignment * apart, log)

    def reconstruct(self, batch: Batch) -> Tensor:
        """-> (B, N, P): what the tokenizer paints of the likeliest codes, among those of visible patches."""
        tokens, mask = masked(batch)
        _, logits = self._predicted(tokens, mask)
        codes = self.target.tokenizer.codes(tokens).scatter(1, mask.hide, logits.argmax(dim=2))
        return self.target.tokenizer.decoded(codes)

    def _predicted(self, tokens: Tokens, mask: IndexMask) -> tuple[Tensor, Tensor]:
        """-> (B, M, D), (B, M, codes): features of hidden patches, and what the decoder reads from them"""
        features = self.regressor(self._encoded(tokens, mask.keep), mask)
        return features, self.decoder(features + F.embedding(mask.hide, self.regressor.positions))

    def _encoded(self, tokens: Tokens, numbers: Tensor) -> Tensor:
        """(B, M) int64 -> (B, M, D): features of the patches with these numbers, made from them alone"""
        encoded: Tensor = self.backbone(tokens, numbers)[:, self.backbone.num_prefix :]
        return encoded

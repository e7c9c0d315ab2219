"""VQ-VAE: a ViT turns patches into discrete codes, from which a light decoder reconstructs the image: a tokenizer.

Van den Oord, Vinyals and Kavukcuoglu, "Neural discrete representation learning", NeurIPS 2017, arXiv:1711.00937, with
ViTs for its convolutions and codes of unit length as in ViT-VQGAN (Yu et al., ICLR 2022, arXiv:2110.04627), whose list
of 8192 codes of 32 channels is the default. Codes are moving averages, as in its appendix A.1, and those hardly used
begin anew, as in Jukebox (arXiv:2005.00341). Objectives that predict codes, such as BEiT, name a run of this one as
their teacher.

Deviations from the authors' code: the only loss of pixels is the squared error; ViT-VQGAN adds logit-Laplace,
perceptual and adversarial ones, whose networks are trained on labels.

B: batch, N: tokens, P: values of a patch.
"""

from collections.abc import Mapping
from typing import final

import torch.nn.functional as F
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from selfsup.encoder import TokenEncoder
from selfsup.knob import Choice, Knobs, Range, knob
from selfsup.method import Batch, Method, Out, TrainInfo
from selfsup.parts import checks, decoder
from selfsup.parts.heads import xavier_linears
from selfsup.parts.positions import sincos
from selfsup.parts.quantizers import Quantized, VectorQuantizer
from selfsup.parts.tokens import Tokens
from selfsup.views import Crop, Views


@final
class VQVAE(Method):
    """Each patch becomes the nearest of a list of learned codes; a decoder paints the image from codes alone."""

    paper, family, backbones = "1711.00937", "reconstruction", ("vit",)
    modalities = None
    separable = True
    positions: Tensor

    class Hyper(Knobs):
        num_codes: int = knob(8192, "codes in the list", symbol="K", sweep=Choice(512, 1024, 8192), gt=1)
        code_dim: int = knob(32, "channels of a code", sweep=Choice(8, 16, 32, 64), gt=0)
        unit_codes: bool = knob(True, "compare codes at unit length", sweep=Choice(False, True))
        code_decay: float = knob(0.99, "of each code's moving average", symbol="γ", sweep=Choice(0.9, 0.99), ge=0, lt=1)
        commitment: float = knob(0.25, "weight of features that move to their codes", symbol="β", sweep=Range(0.1, 2.0))
        decoder_width: int = knob(512, **decoder.WIDTH)
        decoder_depth: int = knob(8, **decoder.DEPTH)
        decoder_heads: int = knob(16, **decoder.HEADS)
        crop_min: float = knob(0.2, "smallest crop, as a share of the image", sweep=Range(0.05, 1.0), gt=0, le=1)

        _whole_heads = checks.whole_heads("decoder")

    @classmethod
    def views(cls, hyper: Hyper) -> Views:
        return Views((Crop(scale=(hyper.crop_min, 1.0)),))

    def __init__(self, hyper: Hyper, encoders: Mapping[str, TokenEncoder], info: TrainInfo) -> None:
        super().__init__(hyper, encoders, info)
        self.num_codes = hyper.num_codes
        hidden = self.backbone.dim
        self.project = nn.Sequential(nn.Linear(hidden, hidden), nn.Tanh(), nn.Linear(hidden, hyper.code_dim))
        sizes = hyper.num_codes, hyper.code_dim
        self.quantizer = VectorQuantizer(*sizes, decay=hyper.code_decay, unit=hyper.unit_codes)
        self.commitment = hyper.commitment
        width, depth, heads = hyper.decoder_width, hyper.decoder_depth, hyper.decoder_heads
        self.embed = nn.Linear(hyper.code_dim, width)
        self.register_buffer("positions", sincos(self.backbone.grid, width), persistent=False)
        self.decoder = nn.Sequential(
            *(Block(width, heads, qkv_bias=True) for _ in range(depth)),
            nn.LayerNorm(width, eps=1e-6),
            nn.Linear(width, self.backbone.patch_values),
        )
        for part in (self.project, self.embed, self.decoder):
            xavier_linears(part)

    def forward(self, batch: Batch) -> Out:
        [view] = batch.views
        assert isinstance(view.value, Tokens)
        quantized = self._quantized(view.value)
        pixels = F.mse_loss(self._painted(quantized.value).float(), view.value.value.float())
        log = {
            "pixels": pixels,
            "quantization": quantized.loss,
            "perplexity": self.quantizer.perplexity,
        }
        log = {"pixels": pixels, "commitment": quantized.loss, "perplexity": self.quantizer.perplexity}
        aux = {"z": quantized.z, "code": quantized.code}
        return Out(pixels + self.commitment * quantized.loss, log, aux)

    def after_step(self, t: float, aux: Mapping[str, Tensor]) -> None:  # noqa: ARG002
        self.quantizer.update(aux["z"], aux["code"])

    def codes(self, view: Tokens | Tensor) -> Tensor:
        """-> (B, N) int64"""
        return self._quantized(view).code

    def decoded(self, codes: Tensor) -> Tensor:
        """(B, N) int64 -> (B, N, P)"""
        return self._painted(self.quantizer.vectors(codes)).float()

    def reconstruct(self, batch: Batch) -> Tensor:
        """-> (B, N, P): every patch, from its code and those of the others."""
        return self.decoded(self.codes(batch.views[0].value))

    def _quantized(self, view: Tokens | Tensor) -> Quantized:
        quantized: Quantized = self.quantizer(self.project(self.backbone(view)[:, self.backbone.num_prefix :]))
        return quantized

    def _painted(self, vectors: Tensor) -> Tensor:
        """(B, N, D) -> (B, N, P)"""
        painted: Tensor = self.decoder(self.embed(vectors) + self.positions)
        return painted

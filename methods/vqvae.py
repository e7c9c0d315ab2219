"""VQ-VAE: a ViT turns patches into discrete codes, from which a light decoder reconstructs the image: a tokenizer.

Van den Oord, Vinyals and Kavukcuoglu, "Neural discrete representation learning", NeurIPS 2017, arXiv:1711.00937, with
ViTs for its convolutions and codes of unit length as in ViT-VQGAN (Yu et al., ICLR 2022, arXiv:2110.04627), whose list
of 8192 codes of 32 channels is the default. Codes are moving averages, as in its appendix A.1, and those hardly used
begin anew, as in Jukebox (arXiv:2005.00341). With quantizer: gumbel it is the discrete VAE of DALL-E (Ramesh et al.,
arXiv:2102.12092), with the schedules of its appendix A.2 as shares of its 3 million steps. Objectives that predict
codes, such as BEiT, name a run of this one as their teacher.

Deviations from the authors' code: the only loss of pixels is the squared error; ViT-VQGAN adds logit-Laplace,
perceptual and adversarial ones, whose networks are trained on labels, and DALL-E has logit-Laplace alone.

B: batch, N: tokens, P: values of a patch, K: codes.
"""

from collections.abc import Iterator, Mapping
from typing import Literal, final

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from selfsup.encoder import TokenEncoder
from selfsup.errors import SpecError
from selfsup.knob import Choice, Knobs, Range, knob
from selfsup.method import Batch, Method, Out, TrainInfo
from selfsup.parts import checks, decoder, noise
from selfsup.parts.heads import xavier_linears
from selfsup.parts.positions import sincos
from selfsup.parts.quantizers import GumbelQuantizer, Quantized, VectorQuantizer
from selfsup.parts.schedules import cosine_ramp
from selfsup.parts.tokens import Tokens
from selfsup.sections import Setup
from selfsup.views import Crop, Views

LOSSES = {"vq": "commitment", "gumbel": "divergence"}  # of a quantizer, by the name that they are recorded by
IDLE = {  # knobs without effect on a quantizer
    "vq": ("temperature", "temperature_end", "temperature_fall", "kl_weight", "kl_rise"),
    "gumbel": ("unit_codes", "commitment"),
}


@final
class VQVAE(Method):
    """Each patch becomes the nearest of a list of learned codes; a decoder paints the image from codes alone."""

    paper, family, backbones = "1711.00937", "reconstruction", ("vit",)
    modalities = None
    separable = True
    positions: Tensor
    kl_weight: Tensor  # of this step

    class Hyper(Knobs):
        num_codes: int = knob(8192, "codes in the list", symbol="K", sweep=Choice(512, 1024, 8192), gt=1)
        code_dim: int = knob(32, "channels of a code", sweep=Choice(8, 16, 32, 64), gt=0)
        unit_codes: bool = knob(True, "compare codes at unit length", sweep=Choice(False, True))
        code_decay: float = knob(0.99, "of each code's moving average", symbol="γ", sweep=Choice(0.9, 0.99), ge=0, lt=1)
        commitment: float = knob(
            0.25, "weight of features that move to their codes", symbol="β", sweep=Range(0.1, 2.0), ge=0
        )
        decoder_width: int = knob(512, **decoder.WIDTH)
        decoder_depth: int = knob(8, **decoder.DEPTH)
        decoder_heads: int = knob(16, **decoder.HEADS)
        crop_min: float = knob(0.2, "smallest crop, as a share of the image", sweep=Range(0.05, 1.0), gt=0, le=1)
        quantizer: Literal["vq", "gumbel"] = knob("vq", "codes are the nearest ones, or drawn, as in DALL-E")
        temperature: float = knob(1.0, "of relaxed draws at first, the quantizer gumbel", symbol="τ", gt=0)
        temperature_end: float = knob(1 / 16, "of relaxed draws in the end, the quantizer gumbel", gt=0)
        temperature_fall: float = knob(0.05, "share of training in which it falls, the quantizer gumbel", ge=0, le=1)
        kl_weight: float = knob(6.6, "of the divergence from even use of codes, the quantizer gumbel", symbol="β", ge=0)
        kl_rise: float = knob(1 / 600, "share of training in which it rises, the quantizer gumbel", ge=0, le=1)

        _whole_heads = checks.whole_heads("decoder")

    @classmethod
    def views(cls, hyper: Hyper) -> Views:
        return Views((Crop(scale=(hyper.crop_min, 1.0)),), draws=2 if hyper.quantizer == "gumbel" else 0)

    @classmethod
    def check(cls, hyper: Hyper, setup: Setup, info: TrainInfo | None = None) -> Iterator[SpecError]:  # noqa: ARG003
        yield from checks.of_a_grid(setup.modality)
        for name in IDLE[hyper.quantizer]:
            yield from checks.idle(hyper, name, "quantizer")

    def __init__(self, hyper: Hyper, encoders: Mapping[str, TokenEncoder], info: TrainInfo) -> None:
        super().__init__(hyper, encoders, info)
        self.hyper, self.info, self.num_codes = hyper, info, hyper.num_codes
        hidden, sizes = self.backbone.dim, (hyper.num_codes, hyper.code_dim)
        self.project: nn.Module
        self.quantizer: VectorQuantizer | GumbelQuantizer
        if hyper.quantizer == "gumbel":
            self.project = nn.Linear(hidden, hyper.num_codes)
            self.quantizer = GumbelQuantizer(*sizes, decay=hyper.code_decay, temperature=hyper.temperature)
            self.register_buffer("kl_weight", torch.tensor(cosine_ramp(0.0, 0.0, hyper.kl_weight, hyper.kl_rise)))
        else:
            self.project = nn.Sequential(nn.Linear(hidden, hidden), nn.Tanh(), nn.Linear(hidden, hyper.code_dim))
            self.quantizer = VectorQuantizer(*sizes, decay=hyper.code_decay, unit=hyper.unit_codes)
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
        quantized = self._quantized(view.value, batch.draws)
        pixels = F.mse_loss(self._painted(quantized.value).float(), view.value.value.float())
        log = {"pixels": pixels, LOSSES[self.hyper.quantizer]: quantized.loss, "perplexity": self.quantizer.perplexity}
        if isinstance(self.quantizer, GumbelQuantizer):
            weight = self.kl_weight / self.backbone.patch_values  # DALL-E's loss is a mean over values of pixels
            return Out(pixels + weight * quantized.loss, log, {"code": quantized.code})
        loss = pixels + self.hyper.commitment * quantized.loss
        return Out(loss, log, {"z": quantized.z, "code": quantized.code})

    def after_step(self, t: float, aux: Mapping[str, Tensor]) -> None:
        if isinstance(self.quantizer, VectorQuantizer):
            self.quantizer.update(aux["z"], aux["code"])
            return
        self.quantizer.update(aux["code"])
        hyper, next_t = self.hyper, t + 1 / self.info.num_steps
        warmth = cosine_ramp(next_t, hyper.temperature, hyper.temperature_end, hyper.temperature_fall)
        self.quantizer.temperature.fill_(warmth)
        self.kl_weight.fill_(cosine_ramp(next_t, 0.0, hyper.kl_weight, hyper.kl_rise))

    def codes(self, view: Tokens | Tensor) -> Tensor:
        """-> (B, N) int64"""
        return self._quantized(view).code

    def decoded(self, codes: Tensor) -> Tensor:
        """(B, N) int64 -> (B, N, P)"""
        return self._painted(self.quantizer.vectors(codes)).float()

    def reconstruct(self, batch: Batch) -> Tensor:
        """-> (B, N, P): every patch, from its code and those of the others."""
        return self.decoded(self.codes(batch.views[0].value))

    def _quantized(self, view: Tokens | Tensor, draws: Tensor | None = None) -> Quantized:
        """Return codes and their vectors: relaxed draws of a Gumbel quantizer where there are random numbers."""
        given = [self.project(self.backbone(view)[:, self.backbone.num_prefix :])]
        if draws is not None and isinstance(self.quantizer, GumbelQuantizer):
            given.append(noise.gumbel(draws, tuple(given[0].shape[1:])))
        quantized: Quantized = self.quantizer(*given)
        return quantized

    def _painted(self, vectors: Tensor) -> Tensor:
        """(B, N, D) -> (B, N, P)"""
        painted: Tensor = self.decoder(self.embed(vectors) + self.positions)
        return painted

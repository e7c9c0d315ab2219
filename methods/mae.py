"""MAE: an encoder sees a quarter of the patches, a small decoder paints the others.

He, Chen, Xie, Li, Dollár and Girshick, "Masked autoencoders are scalable vision learners", CVPR 2022, arXiv:2111.06377.
"""

from collections.abc import Mapping
from functools import partial

import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from selfsup.encoder import TokenEncoder
from selfsup.knob import Choice, Knobs, Range, knob
from selfsup.method import Batch, Method, Out
from selfsup.parts.losses import masked_mse
from selfsup.parts.positions import sincos
from selfsup.pipelines.views import Crop, Views


class Hyper(Knobs):
    mask_ratio: float = knob(0.75, "share of patches that the encoder does not see", sweep=Range(0.3, 0.95), gt=0, lt=1)
    decoder_depth: int = knob(8, "transformer blocks of the decoder", sweep=Choice(1, 2, 4, 8, 12), ge=1, le=48)
    decoder_width: int = knob(512, "channels of the decoder", sweep=Choice(128, 256, 512, 768, 1024), ge=4, multiple_of=4)
    decoder_heads: int = knob(16, "attention heads of the decoder", ge=1)
    norm_pix_loss: bool = knob(False, "paint patches of mean 0 and deviation 1", sweep=Choice(False, True))
    crop_min: float = knob(0.2, "smallest crop, as a share of the image's area", sweep=Range(0.05, 1.0), gt=0, le=1)


class MAE(Method):
    paper = "2111.06377"
    Hyper = Hyper
    needs_tokens = True

    @classmethod
    def views(cls, hyper: Hyper) -> Views:
        return Views((Crop(scale=(hyper.crop_min, 1.0)),), mask_ratio=hyper.mask_ratio)

    def __init__(self, hyper: Hyper, encoders: Mapping[str, TokenEncoder]) -> None:
        super().__init__(hyper, encoders)
        self.hyper = hyper
        self.encoders = nn.ModuleDict(encoders)
        (trunk,) = encoders.values()
        width = hyper.decoder_width
        self.embed = nn.Linear(trunk.dim, width)
        self.mask_token = nn.Parameter(torch.empty(width))
        self.register_buffer("positions", sincos(trunk.grid, width), persistent=False)
        norm = partial(nn.LayerNorm, eps=1e-6)
        blocks = (Block(width, hyper.decoder_heads, qkv_bias=True, norm_layer=norm) for _ in range(hyper.decoder_depth))
        self.decoder = nn.Sequential(*blocks)
        self.norm = norm(width)
        self.paint = nn.Linear(width, trunk.token_dim)
        self._initialise()

    def forward(self, batch: Batch) -> Out:
        tokens, mask = batch.views[0], batch.mask
        return Out(masked_mse(self._predict(batch), self._target(tokens.value), mask.removed))

    def reconstruct(self, batch: Batch) -> Tensor:
        painted = self._predict(batch)
        if not self.hyper.norm_pix_loss:
            return painted
        mean, deviation = _moments(batch.views[0].value)
        return painted * deviation + mean

    def encoder(self, modality: str) -> TokenEncoder:
        return self.encoders[modality]

    def _predict(self, batch: Batch) -> Tensor:
        """-> (B, N, P): the decoder's patches, in the units of the target"""
        (trunk,) = self.encoders.values()
        tokens, mask = batch.views[0], batch.mask
        prefix, seen = self.embed(trunk(tokens, mask.keep)).split([trunk.num_prefix, mask.keep.shape[1]], dim=1)
        hidden = self.mask_token.to(seen.dtype).expand(len(seen), mask.restore.shape[1] - seen.shape[1], -1)
        x = torch.cat([seen, hidden], dim=1)
        x = x.gather(1, mask.restore[..., None].expand(-1, -1, x.shape[2]))
        x = x + self.positions[trunk.place(tokens.coord)]
        x = self.norm(self.decoder(torch.cat([prefix, x], dim=1)))
        return self.paint(x[:, trunk.num_prefix :])

    def _target(self, value: Tensor) -> Tensor:
        """(B, N, P) -> (B, N, P)"""
        if not self.hyper.norm_pix_loss:
            return value
        mean, deviation = _moments(value)
        return (value - mean) / deviation

    def _initialise(self) -> None:
        nn.init.normal_(self.mask_token, std=0.02)
        for module in (self.embed, self.paint, *self.decoder.modules()):
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)


def _moments(value: Tensor) -> tuple[Tensor, Tensor]:
    """(B, N, P) -> (B, N, 1), (B, N, 1): mean and deviation of each patch"""
    return value.mean(dim=-1, keepdim=True), (value.var(dim=-1, keepdim=True) + 1e-6).sqrt()

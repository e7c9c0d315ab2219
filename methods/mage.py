"""MAGE: a ViT sees few patches, some as masked and half not at all; a decoder predicts the codes of all masked ones.

Li, Chang, Mishra, Zhang, Katabi and Krishnan, "MAGE: masked generative encoder to unify representation learning and
image synthesis", CVPR 2023, arXiv:2211.09117. The tokenizer is the spec's `teacher`, such as in1k/vqvae; the paper's is
a VQGAN. Defaults are the authors' for ViT-B; contrast: 0.1 is MAGE-C.

Deviations from the authors' code: the encoder sees pixels, where theirs sees codes, and images by their tokenizer
alone: so it stays an encoder of images, but has no quantized input, and makes no images. With input: decoded it learns
on what the tokenizer paints of the codes, whose patches tell of masked ones, too, and is evaluated on pixels all the
same. No dropout; the decoder's positions are fixed, and its last layer is linear, where theirs compares with the
embeddings of codes. All processes mask the same share in a step. The code has no contrast: it is the paper's, from
memory, by two layers on the mean token.

B: batch, N: tokens, M: masked ones, K: those that the encoder sees, D: channels.
"""

from collections.abc import Iterator, Mapping
from typing import Literal, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfsup.batch import View
from selfsup.encoder import TokenEncoder
from selfsup.errors import SpecError
from selfsup.knob import Choice, Knobs, Range, knob
from selfsup.masks import IndexMask
from selfsup.method import Batch, Method, Out, TrainInfo
from selfsup.parts import checks, decoder, latent
from selfsup.parts.contrastive import batch_nce
from selfsup.parts.decoder import Decoder
from selfsup.parts.heads import mlp
from selfsup.parts.patch import unpatchify
from selfsup.parts.tokens import Tokens
from selfsup.sections import Setup
from selfsup.variablemask import VariableMask
from selfsup.views import Crop, Views


@final
class MAGE(Method):
    """The share of masked patches varies from half of them to all, as making an image code by code would have it."""

    paper, family, backbones = "2211.09117", "reconstruction", ("vit",)
    class_token = True
    learns_from = "codes"

    class Hyper(Knobs):
        mask_min: float = knob(
            0.5,
            "least share of patches masked, and share that the encoder never sees",
            sweep=Range(0.3, 0.7),
            gt=0,
            lt=1,
        )
        mask_mean: float = knob(
            0.55, "mean of that share, before it is cut", symbol="μ", sweep=Range(0.4, 0.8), gt=0, le=1
        )
        mask_std: float = knob(
            0.25, "its deviation, before it is cut", symbol="σ", sweep=Range(0.1, 0.4), ge=1e-3, le=1
        )
        input: Literal["pixels", "decoded"] = knob(
            "pixels", "what the encoder sees: pixels, or what the tokenizer paints of all codes"
        )
        smoothing: float = knob(0.1, "of the codes that are told", sweep=Choice(0.0, 0.1), ge=0, lt=1)
        contrast: float = knob(0.0, "weight of telling two views from others, MAGE-C's", symbol="λ", ge=0)
        temperature: float = knob(0.2, "softmax temperature of the contrast", symbol="τ", gt=0)
        dim: int = knob(256, "channels of the space that views are compared in", gt=0)
        decoder_width: int = knob(768, **decoder.WIDTH)
        decoder_depth: int = knob(8, **decoder.DEPTH)
        decoder_heads: int = knob(16, **decoder.HEADS)
        crop_min: float = knob(0.2, "smallest crop, as a share of the image", sweep=Range(0.05, 1.0), gt=0, le=1)

        _whole_heads = checks.whole_heads("decoder")

    @classmethod
    def views(cls, hyper: Hyper) -> Views:
        rule = VariableMask(hyper.mask_min, hyper.mask_mean, hyper.mask_std)
        crop = Crop(scale=(hyper.crop_min, 1.0), resample="bilinear", mask=rule)
        return Views((crop, crop) if hyper.contrast else (crop,))

    @classmethod
    def check(cls, hyper: Hyper, setup: Setup, info: TrainInfo | None = None) -> Iterator[SpecError]:
        if setup.grid is not None:
            rule = VariableMask(hyper.mask_min, hyper.mask_mean, hyper.mask_std)
            seen, _ = rule.typical(setup.grid)
            if not seen:
                message = f"a least share of {hyper.mask_min:g} masked leaves the encoder no token of a sample"
                yield SpecError(message, "hyper.mask_min", "backbone.patch_size", "backbone.image_size")
        if not hyper.contrast:
            for name in ("temperature", "dim"):
                yield from checks.idle(hyper, name, "contrast")
        if info and info.teacher:
            yield from checks.a_code_a_token(info.teacher, setup)

    def __init__(self, hyper: Hyper, encoders: Mapping[str, TokenEncoder], info: TrainInfo) -> None:
        super().__init__(hyper, encoders, info)
        assert info.teacher, "it learns from a tokenizer"
        self.hyper, self.teacher, width = hyper, info.teacher, self.backbone.dim
        sizes = {"width": hyper.decoder_width, "depth": hyper.decoder_depth, "heads": hyper.decoder_heads}
        self.decoder = Decoder(self.backbone, **sizes, values=info.teacher.num_codes, fills=False)
        self.mask_token = nn.Parameter(0.02 * torch.randn(1, width))
        self.projector = mlp(width, width, hyper.dim, norm=False, out="bias") if hyper.contrast else None

    def forward(self, batch: Batch) -> Out:
        entropies, features = zip(*(self._read(view) for view in batch.views), strict=True)
        codes = torch.stack(entropies).mean()
        if self.projector is None:
            return Out(codes)
        one, two = (self.projector(hidden[:, self.backbone.num_prefix :].mean(dim=1)) for hidden in features)
        pairs = (batch_nce(*pair, temperature=self.hyper.temperature) for pair in ((one, two), (two, one)))
        contrast = torch.stack([*pairs]).mean()
        return Out(codes + self.hyper.contrast * contrast, {"codes": codes, "contrast": contrast})

    def reconstruct(self, batch: Batch) -> Tensor:
        """-> (B, C, *S): what the tokenizer paints of all codes, the likeliest ones where they are masked."""
        tokens, mask, targets = _masked(batch.views[0])
        codes = self.teacher.codes(tokens)
        logits = self._logits(self._encoded(self._input(tokens, codes), mask, targets), mask, targets)
        whole = self.teacher.decoded(codes.scatter(1, targets, logits.argmax(dim=2)))
        return unpatchify(whole, grid=tokens.grid, patch=self.backbone.patch)

    def seen(self, batch: Batch) -> Tensor:
        """-> (B, N, P): masked patches are zero, whether the encoder sees them as masked or not at all."""
        tokens, _, targets = _masked(batch.views[0])
        value = self._input(tokens, self.teacher.codes(tokens)).value
        return value.scatter(1, targets[..., None].expand(-1, -1, value.shape[2]), 0.0)

    def _read(self, view: View) -> tuple[Tensor, Tensor]:
        """-> (): cross-entropy of masked codes, the mean over those of a view; (B, num_prefix + K, D)"""
        tokens, mask, targets = _masked(view)
        codes = self.teacher.codes(tokens)
        hidden = self._encoded(self._input(tokens, codes), mask, targets)
        logits, code = self._logits(hidden, mask, targets), codes.take_along_dim(targets, dim=1)
        flat = logits.float().flatten(0, 1), code.flatten()
        return F.cross_entropy(*flat, label_smoothing=self.hyper.smoothing), hidden

    def _input(self, tokens: Tokens, codes: Tensor) -> Tokens:
        """Return what the encoder sees of patches with these codes."""
        return tokens if self.hyper.input == "pixels" else tokens._replace(value=self.teacher.decoded(codes))

    def _encoded(self, tokens: Tokens, mask: IndexMask, targets: Tensor) -> Tensor:
        """-> (B, num_prefix + K, D): of visible patches, and of masked ones by one learned vector at their places"""
        known = mask.order.shape[1] - targets.shape[1]
        replaced = (torch.arange(mask.keep.shape[1], device=targets.device) >= known).expand_as(mask.keep)
        encoded: Tensor = self.backbone(tokens, mask.keep, cover=(replaced, self.mask_token))
        return encoded

    def _logits(self, hidden: Tensor, mask: IndexMask, targets: Tensor) -> Tensor:
        """-> (B, M, codes): of masked patches, at each of which the decoder has the class token's features"""
        known = mask.order.shape[1] - targets.shape[1]
        empty = hidden[:, :1].expand(-1, targets.shape[1], -1)
        whole = torch.cat([hidden[:, : self.backbone.num_prefix + known], empty], dim=1)
        places = self.decoder(whole, IndexMask(keep=mask.order, hide=mask.order[:, :0]))
        logits: Tensor = self.decoder.paint(places[:, known:])
        return logits


def _masked(view: View) -> tuple[Tokens, IndexMask, Tensor]:
    """Return the tokens of a view, its mask, and the numbers of those that are masked, (B, M)."""
    tokens, mask, targets = latent.masked_view(view)
    return tokens, mask, targets[:, 0]

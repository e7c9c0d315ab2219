"""MAE: a ViT encodes the visible patches of an image, and a light decoder reconstructs the pixels of the others.

He, Chen, Xie, Li, Dollár and Girshick, "Masked autoencoders are scalable vision learners", CVPR 2022, arXiv:2111.06377.
Defaults are the paper's baseline, whose target is plain pixels; its best models set norm_pix_loss.

The switches of Table 1 are knobs. Deviations from the authors' code: none but those of all objectives is known; it has
the baseline alone, so the others follow the paper, which leaves open the PCA's data (here a model's, `parts.pca`), the
strength of color jitter, and what fills blocks up to the ratio. mask_block and several class tokens
(backbone.class_tokens) are Pixio's (arXiv 2512.15715), the target of gradients MaskFeat's (arXiv 2112.09133).

For recordings, masks in time and frequency and windows of the decoder are Audio-MAE's (arXiv 2207.06405), whose best
model has mask_ratio 0.8, decoder_window 4 and decoder_depth 16. Of both axes, mask: time+frequency hides equal shares,
so that mask_ratio of the patches are hidden; its code leaves them to the user. Other deviations: `parts.windows`.

On clips it is MAE-ST (arXiv 2205.09113), whose best model hides 0.9 of the patches, and with mask: tube, norm_pix_loss
and norm_channels VideoMAE (arXiv 2203.12602). MAE-ST leaves open how its blocks are drawn: mask_block makes them cubes
of a grid. Deviation from both: positions are sines and cosines of time, row and column, a third of the channels each;
MAE-ST's are learned, VideoMAE's the sines of a token's number.

On clouds, with target: points and mask_ratio 0.6, it is Point-MAE (arXiv 2203.06604), which predicts the points of
hidden groups by the Chamfer distance; its decoder has 4 blocks as wide as the encoder's. Deviations: those of
`parts.groups`, and positions, the decoder's, too, are added once, not before every block.

On a Hiera (arXiv 2306.00989), whose mask units are squares of two by two tokens, mask_block is 2, and multi_scale is
theirs. Deviation from its authors' code: the decoder's positions are MAE's, fixed, where theirs are learned.

B: batch, N: tokens, K: visible tokens, P: values of a patch.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Literal, final

import torch
from torch import Tensor, nn

from selfsup.encoder import HieraEncoder, SparseEncoder
from selfsup.errors import SpecError
from selfsup.frozen import Frozen
from selfsup.knob import Choice, Knobs, Range, knob
from selfsup.masks import AxisMask, FilledBlockMask, GridMask, IndexMask, MaskRule, RandomMask
from selfsup.method import Batch, Lesson, Method, Out, ParamOptions, TrainInfo
from selfsup.parts import checks, decoder, initial
from selfsup.parts.decoder import Decoder
from selfsup.parts.fusion import Fusion
from selfsup.parts.reconstruction import masked
from selfsup.parts.targets import CloudTarget, CodeTarget, HogTarget, PcaTarget, PixelTarget, Target
from selfsup.parts.tokens import Tokens
from selfsup.sections import Setup
from selfsup.tubemask import TubeMask
from selfsup.views import Center, Crop, Views

FIXED = 224 / 256  # of the shorter side, the usual crop of one size


@final
class MAE(Method):
    """A ViT encodes the visible patches; a light decoder, thrown away afterwards, paints the hidden ones from that."""

    paper, family, backbones = "2111.06377", "reconstruction", ("vit",)
    modalities = None  # any: what it learns from a view does not depend on its kind
    mask_units = separable = True
    learns_from = "codes"  # where these are the target

    class Hyper(Knobs):
        mask_ratio: float = knob(0.75, "share of patches hidden from the encoder", sweep=Range(0.4, 0.9), gt=0, lt=1)
        decoder_width: int = knob(512, **decoder.WIDTH)
        decoder_depth: int = knob(8, **decoder.DEPTH)
        decoder_heads: int = knob(16, **decoder.HEADS)
        decoder_window: int | None = knob(None, **decoder.WINDOW)
        mask: Literal["random", "grid", "block", "time", "frequency", "time+frequency", "tube"] = knob(
            "random",
            "hidden: any patches, all but one of every four, rectangles (figure 6), whole times, frequencies, or the "
            "same of every frame",
        )
        mask_block: int = knob(1, "patches a side of the squares that random masks hide whole", gt=0)
        multi_scale: bool = knob(False, "the decoder sees all resolutions of a Hiera, not the last alone")
        mask_token: bool = knob(False, "the encoder sees a learned token in place of every hidden patch (table 1c)")
        target: Literal["pixels", "pca", "hog", "codes", "points"] = knob(
            "pixels",
            "what is predicted: pixels, principal components, oriented gradients, a tokenizer's codes, or points of "
            "clouds",
        )
        norm_pix_loss: bool = knob(
            False, "paint each patch normalized by its own mean and deviation", sweep=Choice(False, True)
        )
        norm_channels: bool = knob(False, "norm_pix_loss normalizes each channel of a patch by itself")
        components: int = knob(96, "of a patch, the target pca", gt=0)
        cell: int = knob(8, "pixels a side of a histogram, the target hog", gt=0)
        crops: Literal["random", "fixed", "none"] = knob(
            "random", "crops of random size, of one size, or the middle without flips (table 1e)"
        )
        crop_min: float = knob(0.2, "smallest crop, as a share of the image's area", sweep=Range(0.05, 1.0), gt=0, le=1)
        color_jitter: float = knob(
            0.0, "strength of that of brightness, contrast and saturation; a quarter for hue", ge=0, le=1
        )

        _whole_heads = checks.whole_heads("decoder")

    @classmethod
    def lesson(cls, hyper: Hyper) -> Lesson | None:
        return "codes" if hyper.target == "codes" else None

    @classmethod
    def views(cls, hyper: Hyper) -> Views:
        rule = mask_rule(hyper)
        if hyper.crops == "none":
            return Views((Center(share=FIXED, rounded=True, mask=rule),))
        crop = Crop(scale=(hyper.crop_min, 1.0), share=FIXED if hyper.crops == "fixed" else None, mask=rule)
        if strength := hyper.color_jitter:
            colors = replace(crop, brightness=strength, contrast=strength, saturation=strength, hue=strength / 4)
            crop = replace(colors, jitter=1.0)
        return Views((crop,))

    @classmethod
    def check(cls, hyper: Hyper, setup: Setup, info: TrainInfo | None = None) -> Iterator[SpecError]:
        if hyper.mask == "grid" and hyper.mask_ratio != 0.75:
            message = f"a grid keeps one of every four patches, a mask ratio of 0.75, not {hyper.mask_ratio:g}"
            yield SpecError(f"{message}; leave it out, or use mask: random", "hyper.mask_ratio", "hyper.mask")
        yield from checks.mask_units(hyper, setup.backbone)
        if hyper.mask == "block" and len(setup.sizes) != 2:
            yield SpecError("rectangles are of samples with two axes; use mask: random", "hyper.mask")
        yield from checks.named_axes("mask", hyper.mask, setup.modality)
        yield from checks.of_clouds(hyper, setup.modality)
        yield from checks.whole_windows("decoder_window", hyper.decoder_window, setup.grid)
        if not hyper.norm_pix_loss:
            yield from checks.idle(hyper, "norm_channels", "norm_pix_loss")
        if hyper.mask != "random":
            yield from checks.idle(hyper, "mask_block", "mask")
        if hyper.target != "pixels":
            yield from checks.idle(hyper, "norm_pix_loss", "target")
        if hyper.crops == "none":
            yield from checks.idle(hyper, "color_jitter", "crops")
        if hyper.target == "pca":
            yield from checks.enough_values("components", hyper.components, setup, info)
        else:
            yield from checks.idle(hyper, "components", "target")
        if hyper.target == "codes" and info and info.teacher:
            yield from checks.a_code_a_token(info.teacher, setup)
        if hyper.target == "hog":
            yield from checks.whole_cells("cell", hyper.cell, setup)
        else:
            yield from checks.idle(hyper, "cell", "target")
        broken = list(checks.whole_squares("mask_block", hyper.mask_block, setup.grid))
        rule, block = mask_rule(hyper), ["hyper.mask_block"] * (hyper.mask_block > 1)
        yield from broken or checks.mask_leaves_both(rule, hyper.mask_ratio, setup.grid, *block)

    @staticmethod
    def initialize(trunk: Any) -> None:
        initial.hiera(trunk)

    def __init__(self, hyper: Hyper, encoders: Mapping[str, SparseEncoder], info: TrainInfo) -> None:
        super().__init__(hyper, encoders, info)
        self.fusion = Fusion(self.backbone) if hyper.multi_scale else None
        self.target = target_of(hyper, self.backbone, info.teacher)
        self.decoder = Decoder(
            self.backbone,
            width=hyper.decoder_width,
            depth=hyper.decoder_depth,
            heads=hyper.decoder_heads,
            values=self.target.values,
            window=hyper.decoder_window,
            fills=not hyper.mask_token,
        )
        self.mask_token = nn.Parameter(0.02 * torch.randn(1, self.backbone.dim)) if hyper.mask_token else None

    def forward(self, batch: Batch) -> Out:
        tokens, mask = masked(batch)
        target = self.target.of(tokens, mask.hide)
        hidden = self._decoded(tokens, mask)[:, mask.keep.shape[1] :]
        return Out(self.target.loss(self.decoder.paint(hidden), target))

    def reconstruct(self, batch: Batch) -> Tensor:
        """-> (B, N, P): every patch as it is painted; with norm_pix_loss, at the true patch's mean and deviation."""
        tokens, mask = masked(batch)
        places = self._decoded(tokens, mask).take_along_dim(mask.restore[..., None], dim=1)
        return self.target.pixels(self.decoder.paint(places).float(), tokens)

    def param_options(self, name: str, weight: Tensor) -> ParamOptions:  # noqa: ARG002
        """Return the options of the optimizer: a Hiera's positions, which are learned, do not decay."""
        return ParamOptions(no_weight_decay=isinstance(self.backbone, HieraEncoder) and "pos_embed" in name)

    def _decoded(self, tokens: Tokens, mask: IndexMask) -> Tensor:
        """-> (B, N, width): the visible places, then the hidden ones, as the mask lists them"""
        decoded: Tensor
        if self.mask_token is None:
            decoded = self.decoder(self._seen(tokens, mask.keep), mask, tokens)
            return decoded
        order = mask.order
        hidden = (torch.arange(order.shape[1], device=order.device) >= mask.keep.shape[1]).expand_as(order)
        seen = self.backbone(tokens, order, cover=(hidden, self.mask_token))
        decoded = self.decoder(seen, IndexMask(keep=order, hide=order[:, :0]), tokens)
        return decoded

    def _seen(self, tokens: Tokens, keep: Tensor) -> Tensor:
        """(B, K) int64 -> (B, prefix + K, D): the visible tokens' features, of all resolutions if they are fused"""
        encoder = self.backbone
        seen: Tensor = (
            encoder.normed(self.fusion(encoder.scales(tokens, keep))) if self.fusion else encoder(tokens, keep)
        )
        return seen


def mask_rule(hyper: MAE.Hyper) -> MaskRule:
    """Return the rule by which patches are hidden."""
    if hyper.mask == "grid":
        return GridMask()
    if hyper.mask == "block":
        return FilledBlockMask(hyper.mask_ratio)
    if hyper.mask == "time":
        return AxisMask((hyper.mask_ratio,))
    if hyper.mask == "frequency":
        return AxisMask((0.0, hyper.mask_ratio))
    if hyper.mask == "time+frequency":
        share = 1 - math.sqrt(1 - hyper.mask_ratio)
        return AxisMask((share, share))
    if hyper.mask == "tube":
        return TubeMask(hyper.mask_ratio)
    return RandomMask(hyper.mask_ratio, hyper.mask_block)


def target_of(hyper: MAE.Hyper, encoder: SparseEncoder, tokenizer: Frozen | None) -> Target:
    """Return what the decoder predicts of a hidden patch."""
    if hyper.target == "codes":
        assert tokenizer, "codes are a tokenizer's"
        return CodeTarget(tokenizer)
    if hyper.target == "pca":
        return PcaTarget(encoder, number=hyper.components)
    if hyper.target == "hog":
        return HogTarget(encoder, cell=hyper.cell)
    if hyper.target == "points":
        return CloudTarget(encoder)
    return PixelTarget(encoder, normalized=hyper.norm_pix_loss, by_channel=hyper.norm_channels)

"""Audiovisual MAE: visible patches of clip and sound are encoded together, and a decoder paints all the others.

Georgescu, Fonseca, Ionescu, Lucic, Schmid and Arnab, "Audiovisual masked autoencoders", ICCV 2023, arXiv:2212.05922.
Defaults are the authors' for ViT-L on AudioSet: encoders of their own, two blocks that both pass together, and one
decoder, which sees one modality at a time. fusion_depth: 0 is their recipe for VGGSound, without such blocks. A clip of
the spec's samples, or an image, is heard as long as `input.audio` says, about its middle.

Deviations from the authors' code: the joint blocks come after the encoders, which alone are evaluated, where theirs are
the last of the encoders' own; encoders have class tokens, which pass decoders, too; positions are sines of every axis,
theirs of a token's number; samples are normalized; a decoder's last layers begin as its others, theirs with zeros.
Modality inpainting is not here.

B: batch, N: patches of a modality, K: visible ones, M: hidden ones, d: channels of the joint blocks, P: of a patch.
"""

from collections.abc import Iterator, Mapping
from typing import final

import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from selfsup.encoder import TokenEncoder
from selfsup.errors import SpecError
from selfsup.knob import Choice, Knobs, Range, knob
from selfsup.masks import IndexMask, RandomMask
from selfsup.method import Batch, Method, Out, TrainInfo
from selfsup.parts import checks, decoder
from selfsup.parts.heads import xavier_linears
from selfsup.parts.joint_blocks import JointBlocks
from selfsup.parts.place_codes import places_of
from selfsup.parts.reconstruction import masked_view
from selfsup.parts.targets import PixelTarget
from selfsup.sections import Setup
from selfsup.views import Beside, Crop, Views


@final
class AudiovisualMAE(Method):
    """Two encoders meet in a few joint blocks; hidden patches of either are painted by what is visible of both."""

    paper, family, backbones, modalities = "2212.05922", "cross-modal", ("vit",), ("image", "video")
    beside = ("audio",)
    separable = True

    class Hyper(Knobs):
        mask_ratio: float = knob(0.9, "share of patches hidden of clips", sweep=Range(0.5, 0.95), gt=0, lt=1)
        audio_ratio: float = knob(0.7, "share of patches hidden of sounds", sweep=Range(0.5, 0.9), gt=0, lt=1)
        audio_weight: float = knob(
            0.5, "of the error of sounds; clips have the rest", sweep=Choice(0.25, 0.5), ge=0, le=1
        )
        norm_pix_loss: bool = knob(False, "paint each patch normalized by its own mean and deviation")
        fusion_depth: int = knob(2, "blocks that tokens of both pass together", sweep=Choice(0, 2, 4), ge=0, le=1000)
        decoder_width: int = knob(512, **decoder.WIDTH)
        decoder_depth: int = knob(4, **decoder.DEPTH)
        decoder_heads: int = knob(8, **decoder.HEADS)
        crop_share: float = knob(0.875, "side of the square that is cut, as a share of the shorter one", gt=0, le=1)

        _whole_heads = checks.whole_heads("decoder")

    @classmethod
    def views(cls, hyper: Hyper) -> Views:
        sight, sound = RandomMask(hyper.mask_ratio), RandomMask(hyper.audio_ratio)
        return Views((Crop(share=hyper.crop_share, mask=sight), Beside(field="audio", of=0, mask=sound)))

    @classmethod
    def check(cls, hyper: Hyper, setup: Setup, info: TrainInfo | None = None) -> Iterator[SpecError]:  # noqa: ARG003
        yield from checks.mask_leaves_both(RandomMask(hyper.mask_ratio), hyper.mask_ratio, setup.grid)
        rule, grid = RandomMask(hyper.audio_ratio), setup.grid_of("audio")
        yield from checks.mask_leaves_both(rule, hyper.audio_ratio, grid, "input.audio", knob="audio_ratio")

    def __init__(self, hyper: Hyper, encoders: Mapping[str, TokenEncoder], info: TrainInfo) -> None:
        super().__init__(hyper, encoders, info)
        self.weight, self.joint_blocks = hyper.audio_weight, JointBlocks(encoders, depth=hyper.fusion_depth)
        self.targets = {name: PixelTarget(own, normalized=hyper.norm_pix_loss) for name, own in encoders.items()}
        sizes = {"width": hyper.decoder_width, "depth": hyper.decoder_depth, "heads": hyper.decoder_heads}
        self.decoder = SharedDecoder(encoders, self.joint_blocks.dim, **sizes)

    def forward(self, batch: Batch) -> Out:
        views, errors = {view.modality: masked_view(view) for view in batch.views}, dict[str, Tensor]()
        seen = {name: self.encoders[name](tokens, mask.keep) for name, (tokens, mask) in views.items()}
        for name, own in self.joint_blocks(seen).items():
            tokens, mask = views[name]
            target = self.targets[name]
            errors[name] = target.loss(self.decoder(name, own, mask), target.of(tokens, mask.hide))
        sight, sound = errors.values()
        log = {f"{name}_error": error for name, error in errors.items()}
        return Out((1 - self.weight) * sight + self.weight * sound, log)


class SharedDecoder(nn.Module):
    """MAE's decoder of one modality at a time: blocks and a norm are shared, layers before and after are each one's."""

    def __init__(self, encoders: Mapping[str, TokenEncoder], dim: int, *, width: int, depth: int, heads: int) -> None:
        super().__init__()
        self.prefix = {name: encoder.num_prefix for name, encoder in encoders.items()}
        self.embeds = nn.ModuleDict({name: nn.Linear(dim, width) for name in encoders})
        self.mask_tokens = nn.ParameterDict({name: nn.Parameter(torch.zeros(1, 1, width)) for name in encoders})
        self.places = nn.ModuleDict({name: places_of(encoder, width) for name, encoder in encoders.items()})
        self.blocks = nn.Sequential(*(Block(width, heads, qkv_bias=True) for _ in range(depth)))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.heads = nn.ModuleDict({name: nn.Linear(width, own.patch_values) for name, own in encoders.items()})
        xavier_linears(self)

    def forward(self, name: str, seen: Tensor, mask: IndexMask) -> Tensor:
        """(B, num_prefix + K, d) of a modality -> (B, M, P)"""
        embedded, prefix, places = self.embeds[name](seen), self.prefix[name], self.places[name]
        visible, hidden = embedded[:, prefix:] + places(mask.keep), self.mask_tokens[name] + places(mask.hide)
        decoded = self.norm(self.blocks(torch.cat([embedded[:, :prefix], visible, hidden], dim=1)))
        painted: Tensor = self.heads[name](decoded[:, -mask.hide.shape[1] :])
        return painted

"""MixedAE: a ViT sees four images mixed into one, tells their patches apart, and a decoder paints each image whole.

Chen, Liu, Hong, Xu, Li and Yeung, "Mixed autoencoder for self-supervised visual representation learning", CVPR 2023,
arXiv:2303.17152. Its abstract, introduction and summaries of others tell of mixed images, a vector for each image in
one, attention of patches to those that fit them, and a loss of two terms. The rest could not be read: the defaults,
numbers of images, weights and temperatures, are from memory. Check them before a claim.

There is no authors' code. Decided here, or from memory: mixed images are composed once for each group of images, which
its 3 % of extra cost over MAE asks for; attention is of the strongest keys in all blocks but the first; the contrastive
loss is a mean over patches and over the other patches of the same image.

B: batch, G: mixed images, S: images of each, B = G * S, N: tokens, n: those of one image, N = S * n, P: values of one.
"""

from collections.abc import Iterator, Mapping
from typing import Any, final

import torch
from torch import Tensor, nn

from selfsup.encoder import TokenEncoder
from selfsup.errors import SpecError
from selfsup.knob import Choice, Knobs, Range, knob
from selfsup.masks import IndexMask, RandomMask
from selfsup.method import Batch, Method, Out, TrainInfo
from selfsup.parts import checks, decoder
from selfsup.parts.contrastive import same_source
from selfsup.parts.decoder import Decoder
from selfsup.parts.patch import unpatchify
from selfsup.parts.pieces import in_pieces
from selfsup.parts.reconstruction import masked, masked_mse
from selfsup.parts.targets import PixelTarget
from selfsup.parts.tokens import Tokens
from selfsup.sections import Setup
from selfsup.sharded import gathered
from selfsup.views import Crop, Views


@final
class MixedAE(Method):
    """A ViT encodes images mixed of several and learns which patches belong together; a decoder paints each of them."""

    paper, family, backbones = "2303.17152", "reconstruction", ("vit",)

    class Hyper(Knobs):
        images: int = knob(4, "images of a mixed one, in equal shares", symbol="1/r", sweep=Choice(2, 4), ge=2)
        contrast: float = knob(0.1, "weight of telling images apart", symbol="λ", sweep=Choice(0.0, 0.1, 1.0), ge=0)
        temperature: float = knob(0.25, "softmax temperature", symbol="τ", sweep=Range(0.05, 1.0, log=True), gt=0)
        decoder_width: int = knob(512, **decoder.WIDTH)
        decoder_depth: int = knob(8, **decoder.DEPTH)
        decoder_heads: int = knob(16, **decoder.HEADS)
        norm_pix_loss: bool = knob(True, "paint each patch normalized by its own mean and deviation")
        crop_min: float = knob(0.2, "smallest crop, as a share of the image's area", sweep=Range(0.05, 1.0), gt=0, le=1)

        _whole_heads = checks.whole_heads("decoder")

    @classmethod
    def views(cls, hyper: Hyper) -> Views:
        return Views((Crop(scale=(hyper.crop_min, 1.0), mask=RandomMask(1 - 1 / hyper.images)),))

    @classmethod
    def check(cls, hyper: Hyper, setup: Setup, info: TrainInfo | None = None) -> Iterator[SpecError]:  # noqa: ARG003
        share = setup.share // setup.train.accumulate
        yield from checks.whole_groups("images", hyper.images, share)
        yield from checks.even_shares("images", hyper.images, setup.grid)

    def __init__(self, hyper: Hyper, encoders: Mapping[str, TokenEncoder], info: TrainInfo) -> None:
        super().__init__(hyper, encoders, info)
        self.hyper = hyper
        self.target = PixelTarget(self.backbone, normalized=hyper.norm_pix_loss)
        width, depth, heads = hyper.decoder_width, hyper.decoder_depth, hyper.decoder_heads
        self.decoder = Decoder(self.backbone, width=width, depth=depth, heads=heads)
        self.segments = nn.Parameter(0.02 * torch.randn(hyper.images, self.backbone.dim))

    def forward(self, batch: Batch) -> Out:
        (tokens, _), (mask, source) = masked(batch), self._shares(batch)
        features = self._features(tokens, source)
        hidden = self._decoded(features, mask)[:, mask.keep.shape[1] :]
        painted = masked_mse(self.decoder.paint(hidden), self.target.of(tokens, mask.hide))
        apart = same_source(features[:, self.backbone.num_prefix :], source, temperature=self.hyper.temperature)
        return Out(painted + self.hyper.contrast * apart, {"pixels": painted, "apart": apart})

    def reconstruct(self, batch: Batch) -> Tensor:
        """-> (B, C, H, W): each image of a group, its own patches among those that are painted."""
        (tokens, _), (mask, source) = masked(batch), self._shares(batch)
        places = self._decoded(self._features(tokens, source), mask).take_along_dim(mask.restore[..., None], dim=1)
        painted = self.target.pixels(self.decoder.paint(places).float(), tokens)
        whole = torch.where(mask.removed[..., None], painted, tokens.value)
        return unpatchify(whole, grid=tokens.grid, patch=self.backbone.patch)

    def seen(self, batch: Batch) -> Tensor:
        """-> (B, N, P): the mixed image, for each of its images."""
        mixed = mix(masked(batch)[0].value, self._shares(batch)[1], self.hyper.images)
        return mixed.repeat_interleave(self.hyper.images, dim=0)

    def _shares(self, batch: Batch) -> tuple[IndexMask, Tensor]:
        """-> of B images, their tokens in a mixed one; (G, N): the image of each token of these.

        The n tokens of each image are the next of the permutation that the first one's mask has.
        """
        number = self.hyper.images
        order = masked(batch)[1].order[::number]  # (G, N)
        shares = order.reshape(len(order), number, -1)
        others = torch.tensor([[*range(own), *range(own + 1, number)] for own in range(number)], device=order.device)
        mask = IndexMask(keep=shares.flatten(0, 1), hide=shares[:, others].flatten(2).flatten(0, 1))
        return mask, order.argsort(dim=1) // shares.shape[2]

    def _features(self, tokens: Tokens, source: Tensor) -> Tensor:
        """-> (G, num_prefix + N, D), where a token attends to as many as an image has, those that fit it best."""
        trunk, prefix, images = self.backbone.trunk, self.backbone.num_prefix, self.hyper.images
        embedded = self.backbone.embedded(tokens)
        patches = embedded[:, prefix:] + self.segments.repeat(len(embedded) // images, 1)[:, None]
        hidden = torch.cat([embedded[::images, :prefix], mix(patches, source, images)], dim=1)

        def encode(hidden: Tensor) -> tuple[Tensor]:
            for number, block in enumerate(trunk.blocks):
                with gathered(block):
                    strongest = best(block, hidden, source.shape[1] // images) if number else None
                hidden = block(hidden, attn_mask=strongest)
            return (trunk.norm(hidden),)

        [features] = in_pieces(encode, hidden, self.backbone.pieces, trunk)
        return features

    def _decoded(self, features: Tensor, mask: IndexMask) -> Tensor:
        """-> (B, N, width), in the order of the mask"""
        prefix, whole = self.backbone.num_prefix, features.repeat_interleave(self.hyper.images, dim=0)
        own = whole[:, prefix:].take_along_dim(mask.keep[..., None], dim=1)
        decoded: Tensor = self.decoder(torch.cat([whole[:, :prefix], own], dim=1), mask)
        return decoded


def mix(values: Tensor, source: Tensor, images: int) -> Tensor:
    """(B, N, ...), (G, N) int64 -> (G, N, ...): of each token that of its image."""
    grouped = values.reshape(-1, images, *values.shape[1:])
    mixed: Tensor = grouped.take_along_dim(source[:, None, :, None], dim=1)[:, 0]
    return mixed


@torch.no_grad()
def best(block: Any, hidden: Tensor, number: int) -> Tensor:
    """(G, T, D) -> (G, H, T, T) bool: of each query the keys of the largest products, `number` of them."""
    attention = block.attn
    parts = attention.qkv(block.norm1(hidden)).unflatten(2, (3, attention.num_heads, -1)).permute(2, 0, 3, 1, 4)
    products = attention.q_norm(parts[0]) @ attention.k_norm(parts[1]).mT
    largest: Tensor = products >= products.topk(number, dim=-1).values[..., -1:]
    return largest

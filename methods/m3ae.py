"""M3AE: one ViT encodes visible patches of an image and visible words of its caption; a light decoder tells the rest.

Geng, Liu, Lee, Schuurmans, Levine and Abbeel, "Multimodal masked autoencoders learn transferable representations",
2022, arXiv:2205.14204. Defaults are the authors', with the README's weight of words.

The encoder is evaluated on images alone. Words have as many channels as patches, and the same blocks.

Deviations from the authors' code: masks are drawn for each sample, where theirs are the same for a batch. What says
that an encoded token is a patch is the bias of the patches' projection, to which theirs adds a vector of its own.
norm_pix_loss is MAE's.

B: batch, N: patches, K: visible ones, L: words, W: visible ones, P: values of a patch.
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
from selfsup.masks import IndexMask, RandomMask
from selfsup.method import Batch, Method, Out, ParamOptions, TrainInfo
from selfsup.parts import checks, decoder
from selfsup.parts.heads import xavier_linears
from selfsup.parts.positions import sincos
from selfsup.parts.reconstruction import masked_view
from selfsup.parts.targets import PixelTarget
from selfsup.parts.tokens import kept
from selfsup.parts.words import Words, attended, read, validity, word_entropy
from selfsup.sections import Setup
from selfsup.views import Beside, Crop, Views

IMAGE, TEXT = range(2)


@final
class M3AE(Method):
    """Patches are told by other patches and by words, words by other words and by patches."""

    paper, family, backbones = "2205.14204", "image-text", ("vit",)
    beside, one_trunk = ("text",), True
    masks_out = ("text",)
    separable = True

    class Hyper(Knobs):
        mask_ratio: float = knob(0.75, "share of patches hidden from the encoder", sweep=Range(0.4, 0.9), gt=0, lt=1)
        word_ratio: float = knob(
            0.75, "share of a caption's tokens hidden from it, padding included", sweep=Range(0.3, 0.9), gt=0, lt=1
        )
        word_weight: float = knob(0.5, "of the words' loss; pixels have 1", sweep=Choice(0.1, 0.5), ge=0)
        norm_pix_loss: bool = knob(False, "paint each patch normalized by its own mean and deviation")
        decoder_width: int = knob(512, **decoder.WIDTH)
        decoder_depth: int = knob(8, **decoder.DEPTH)
        decoder_heads: int = knob(16, **decoder.HEADS)
        crop_min: float = knob(0.2, "smallest crop, as a share of the image's area", sweep=Range(0.05, 1.0), gt=0, le=1)
        flip: float = knob(0.5, "share of images that are mirrored", sweep=Choice(0.0, 0.5), ge=0, le=1)

        _whole_heads = checks.whole_heads("decoder")

    @classmethod
    def views(cls, hyper: Hyper) -> Views:
        crop = Crop(scale=(hyper.crop_min, 1.0), flip=hyper.flip, mask=RandomMask(hyper.mask_ratio))
        return Views((crop, Beside(field="text", mask=RandomMask(hyper.word_ratio))))

    @classmethod
    def check(cls, hyper: Hyper, setup: Setup, info: TrainInfo | None = None) -> Iterator[SpecError]:  # noqa: ARG003
        yield from checks.takes_words(setup.backbone)
        yield from checks.mask_leaves_both(RandomMask(hyper.mask_ratio), hyper.mask_ratio, setup.grid)
        yield from checks.leaves_words("word_ratio", hyper.word_ratio, setup)

    def __init__(self, hyper: Hyper, encoders: Mapping[str, TokenEncoder], info: TrainInfo) -> None:
        super().__init__(hyper, encoders, info)
        self.words = Words(info.beside["text"], self.backbone.dim, std=1.0)
        self.target = PixelTarget(self.backbone, normalized=hyper.norm_pix_loss)
        self.decoder = JointDecoder(
            self.backbone, self.words, width=hyper.decoder_width, depth=hyper.decoder_depth, heads=hyper.decoder_heads
        )
        self.weight = hyper.word_weight

    def forward(self, batch: Batch) -> Out:
        tokens, mask = masked_view(batch.views[IMAGE])
        words, word_mask = masked_view(batch.views[TEXT])
        patches, named = self._decoded(batch)
        painted = self.decoder.paint(patches[:, mask.keep.shape[1] :])
        logits = self.decoder.name(named[:, word_mask.keep.shape[1] :])
        hidden = kept(words._replace(valid=validity(words)), word_mask.hide)
        pixels = self.target.loss(painted, self.target.of(tokens, mask.hide))
        entropy = word_entropy(logits, hidden.value[..., 0], validity(hidden))
        return Out(pixels + self.weight * entropy, {"pixels": pixels, "words": entropy})

    def reconstruct(self, batch: Batch) -> Tensor:
        """-> (B, N, P): every patch as it is painted; with norm_pix_loss, at the true patch's mean and deviation."""
        tokens, mask = masked_view(batch.views[IMAGE])
        places = self._decoded(batch)[IMAGE].take_along_dim(mask.restore[..., None], dim=1)
        return self.target.pixels(self.decoder.paint(places).float(), tokens)

    def param_options(self, name: str, weight: Tensor) -> ParamOptions:  # noqa: ARG002
        """Return the options of the optimizer: learned tokens and embeddings do not decay."""
        return ParamOptions(no_weight_decay=name.endswith(("table.weight", "kind", "kinds", "hidden", "cls_token")))

    def _decoded(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """-> (B, N, width), (B, L, width): patches and words, the visible ones first, as the masks list them"""
        tokens, mask = masked_view(batch.views[IMAGE])
        words, word_mask = masked_view(batch.views[TEXT])
        valid, seen = validity(words), kept(words, word_mask.keep)
        patches = kept(tokens, mask.keep)
        features = read(self.backbone, patches, self.words(seen), valid.take_along_dim(word_mask.keep, 1))
        decoded: tuple[Tensor, Tensor] = self.decoder(features, (mask, word_mask), valid)
        return decoded


class JointDecoder(nn.Module):
    """A narrow transformer over all places of an image and of its caption, with a learned token at every hidden one.

    paint: of a patch its values. name: of a word a number for each of the vocabulary.
    """

    places: Tensor
    order: Tensor

    def __init__(self, encoder: TokenEncoder, words: Words, *, width: int, depth: int, heads: int) -> None:
        super().__init__()
        self.num_prefix = encoder.num_prefix
        self.embed = nn.Linear(encoder.dim, width)
        self.hidden, self.kinds = nn.Parameter(torch.empty(2, width)), nn.Parameter(torch.empty(2, width))
        self.register_buffer("places", sincos(encoder.grid, width), persistent=False)
        self.register_buffer("order", sincos((words.length,), width), persistent=False)
        self.blocks = nn.ModuleList(Block(width, heads, qkv_bias=True) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.paint, self.name = nn.Linear(width, encoder.patch_values), nn.Linear(width, words.vocabulary)
        xavier_linears(self)
        nn.init.normal_(self.hidden, std=0.02)
        nn.init.normal_(self.kinds, std=0.02)

    def forward(self, seen: Tensor, masks: tuple[IndexMask, IndexMask], valid: Tensor) -> tuple[Tensor, Tensor]:
        """(B, num_prefix + K + W, D), (B, L) bool -> (B, N, width), (B, L, width), in the order of the masks"""
        patches, words = (mask.keep.shape[1] for mask in masks)
        prefix, *parts = self.embed(seen).split([self.num_prefix, patches, words], dim=1)
        whole = [self._filled(part, kind, masks[kind]) for kind, part in enumerate(parts)]
        hidden = torch.cat([prefix, *whole], dim=1)
        mask = attended(valid.take_along_dim(masks[TEXT].order, 1), hidden.shape[1])
        for block in self.blocks:
            hidden = block(hidden, attn_mask=mask)
        _, image, text = self.norm(hidden).split([self.num_prefix, *(part.shape[1] for part in whole)], dim=1)
        return image, text

    def _filled(self, seen: Tensor, kind: int, mask: IndexMask) -> Tensor:
        """(B, K, width) -> (B, N, width): with a token for each hidden one, at their places"""
        hidden = self.hidden[kind].expand(len(seen), mask.hide.shape[1], -1)
        places = F.embedding(mask.order, (self.places, self.order)[kind])
        return torch.cat([seen, hidden], dim=1) + places + self.kinds[kind]

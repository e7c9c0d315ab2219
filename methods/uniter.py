"""UNITER: one ViT over patches and words, which tells masked words, masked patches, and whether both belong together.

Chen, Li, Yu, El Kholy, Ahmed, Gan, Cheng and Liu, "UNITER: universal image-text representation learning", ECCV 2020,
arXiv:1909.11740. Defaults are the authors' for UNITER-base; weights are how often they draw a task.

The encoder is evaluated on images alone. Words have as many channels as patches, and the same blocks.

Deviations from the authors' code: regions are patches, whose features are their pixels, and which have no classes of a
detector to tell; the encoder is a ViT, with a norm before each layer, no dropout, fixed places and its own class token,
and does not begin with BERT's weights. Every step has all tasks, each weighted, where theirs has one, drawn. The share
of masked tokens is exact, padding included, and so are the parts of the masked words that become a token (0.8), any
word (0.1), or stay. The pair of a negative is the next sample of the batch. The last layer for words is not their
embedding's. Where captions may be lacking, no pair is told of a sample that is shown none.

B: batch, N: patches, L: words, M: masked ones, D: channels, V: words of the vocabulary, P: values of a patch.
"""

from collections.abc import Iterator, Mapping
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfsup.encoder import TokenEncoder
from selfsup.errors import SpecError
from selfsup.knob import Choice, Knobs, Range, knob
from selfsup.masks import RandomMask
from selfsup.method import Batch, Method, Out, TrainInfo
from selfsup.parts import checks, dist, labels, transport
from selfsup.parts.reconstruction import masked_view
from selfsup.parts.targets import PixelTarget
from selfsup.parts.tokens import Tokens
from selfsup.parts.words import Words, read, validity
from selfsup.sections import Setup
from selfsup.views import Beside, Crop, Views

HIDDEN, REPLACED = 0.8, 0.9  # of masked words: up to where they are a token, and any word, as BERT's
GOLDEN = 0.6180339887  # by multiples of which one number in [0, 1) becomes one for each place


@final
class UNITER(Method):
    """Words are told by patches and words, patches likewise; a caption of another image is told from the own."""

    paper, family, backbones = "1909.11740", "image-text", ("vit",)
    beside, one_trunk = ("text",), True
    masks_out = ("text",)
    class_token = True
    least_batch = 2

    class Hyper(Knobs):
        mask_ratio: float = knob(0.15, "share of patches that are masked", sweep=Range(0.1, 0.6), gt=0, lt=1)
        word_ratio: float = knob(
            0.15, "share of a caption's tokens that are masked, padding included", sweep=Range(0.1, 0.5), gt=0, lt=1
        )
        word_weight: float = knob(2.0, "of telling words", sweep=Choice(1.0, 2.0), ge=0)
        patch_weight: float = knob(1.0, "of telling patches", sweep=Choice(0.0, 1.0), ge=0)
        match_weight: float = knob(2.0, "of telling pairs", sweep=Choice(0.0, 2.0), ge=0)
        transport: float = knob(
            0.1, "weight, beside telling pairs, of moving words to patches; 0: none", sweep=Choice(0.0, 0.1), ge=0
        )
        negatives: float = knob(0.5, "share of images with the caption of another", gt=0, lt=1)
        norm_pix_loss: bool = knob(False, "tell each patch normalized by its own mean and deviation")
        crop_min: float = knob(0.9, "smallest crop, as a share of the image's area", sweep=Range(0.3, 1.0), gt=0, le=1)
        flip: float = knob(0.0, "share of images that are mirrored", sweep=Choice(0.0, 0.5), ge=0, le=1)

    @classmethod
    def views(cls, hyper: Hyper) -> Views:
        crop = Crop(scale=(hyper.crop_min, 1.0), flip=hyper.flip, mask=RandomMask(hyper.mask_ratio))
        return Views((crop, Beside(field="text", mask=RandomMask(hyper.word_ratio))), draws=2)

    @classmethod
    def check(cls, hyper: Hyper, setup: Setup, info: TrainInfo | None = None) -> Iterator[SpecError]:  # noqa: ARG003
        yield from checks.takes_words(setup.backbone)
        yield from checks.mask_leaves_both(RandomMask(hyper.mask_ratio), hyper.mask_ratio, setup.grid)
        yield from checks.leaves_words("word_ratio", hyper.word_ratio, setup)
        if not hyper.match_weight:
            for name in ("transport", "negatives"):
                yield from checks.idle(hyper, name, "match_weight")

    def __init__(self, hyper: Hyper, encoders: Mapping[str, TokenEncoder], info: TrainInfo) -> None:
        super().__init__(hyper, encoders, info)
        self.hyper, width = hyper, self.backbone.dim
        self.words = Words(info.beside["text"], width, std=1.0, further=1)
        self.target = PixelTarget(self.backbone, normalized=hyper.norm_pix_loss)
        self.hidden = nn.Parameter(torch.empty(1, width))
        nn.init.normal_(self.hidden, std=0.02)
        self.name = nn.Sequential(*_changed(width), nn.Linear(width, self.words.vocabulary))
        self.paint = nn.Sequential(*_changed(width))
        self.offset = nn.Parameter(torch.zeros(self.backbone.patch_values))
        self.match = nn.Sequential(nn.Linear(width, width), nn.Tanh(), nn.Linear(width, 2))

    def forward(self, batch: Batch) -> Out:
        entropy, patches = self._words_told(batch), self._patches_told(batch)
        pairs, moved, accuracy = self._pairs_told(batch)
        hyper = self.hyper
        loss = hyper.word_weight * entropy + hyper.patch_weight * patches
        loss = loss + hyper.match_weight * (pairs + hyper.transport * moved)
        log = {"words": entropy, "patches": patches, "pairs": pairs, "moved": moved, "matched": accuracy}
        return Out(loss, log)

    def matched(self, view: Tokens | Tensor, words: Tokens) -> Tensor:
        """-> (B,): logits of pairs, by which section 3.3's "Image-Text Retrieval" ranks them"""
        assert isinstance(view, Tokens), "a ViT sees tokens"
        features = read(self.backbone, view, self.words(words), validity(words))
        logits: Tensor = self.match(features[:, 0])
        return logits[:, 1] - logits[:, 0]

    def _words_told(self, batch: Batch) -> Tensor:
        """-> (): cross-entropy of masked words, their mean over the batch; neither begin nor end is one"""
        (tokens, _), (words, mask) = (masked_view(view) for view in batch.views)
        valid, hidden = validity(words), mask.hide
        counted = (hidden > 0) & (hidden < valid.sum(1, keepdim=True) - 1)
        truth, number, size = words.value[..., 0].take_along_dim(hidden, 1), hidden.shape[1], self.words.vocabulary
        chance = (batch.draws[:, 1:] + GOLDEN * hidden).frac()
        rank = torch.arange(number, device=hidden.device)  # of an order that is random: RandomMask's is that of noise
        other = torch.where(rank < int(REPLACED * number + 0.5), (size * chance).long().clamp_max(size - 1), truth)
        shown = torch.where(rank < int(HIDDEN * number + 0.5), size, other).where(counted, truth)
        seen = words._replace(value=words.value.scatter(1, hidden[..., None], shown[..., None]))
        features = read(self.backbone, tokens, self.words(seen), valid)[:, -valid.shape[1] :]
        logits = self.name(features.take_along_dim(hidden[..., None], 1)).float()
        losses = F.cross_entropy(logits.flatten(0, 1), truth.flatten(), reduction="none").view_as(truth)
        return (losses * counted).sum() / dist.mean(counted.sum().float()).clamp_min(1 / dist.world_size())

    def _patches_told(self, batch: Batch) -> Tensor:
        """-> (): squared error of masked patches, by the transposed projection of patches"""
        (tokens, mask), (words, _) = (masked_view(view) for view in batch.views)
        cover = mask.removed, self.hidden
        features = read(self.backbone, tokens, self.words(words), validity(words), cover)
        places = features[:, self.backbone.num_prefix :].take_along_dim(mask.hide[..., None], 1)
        weight = self.backbone.trunk.patch_embed.proj.weight.movedim(1, -1).flatten(1)
        return self.target.loss(self.paint(places) @ weight + self.offset, self.target.of(tokens, mask.hide))

    def _pairs_told(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """-> (), (), (): cross-entropy of pairs; how far words are from patches, minus that in negatives; accuracy"""
        (tokens, _), (words, _) = (masked_view(view) for view in batch.views)
        is_other = batch.draws[:, 0] < self.hyper.negatives
        shown = _swapped(words, is_other)
        valid = validity(shown)
        features = read(self.backbone, tokens, self.words(shown), valid)
        has = valid.any(1)
        logits, truth = self.match(features[:, 0]), (~is_other).long().where(has, -1)
        _, patches, text = features.split_with_sizes(
            [self.backbone.num_prefix, tokens.value.shape[1], valid.shape[1]], dim=1
        )
        moved = transport.distance(text, patches, valid) if self.hyper.transport else torch.zeros_like(logits[:, 0])
        signed = torch.where(is_other, -moved, moved).where(has, 0.0)
        number = dist.mean(has.sum().to(signed)).clamp_min(1 / dist.world_size())
        return labels.cross_entropy(logits, truth), signed.sum() / number, labels.accuracy(logits, truth)


def _changed(width: int) -> tuple[nn.Module, ...]:
    """Return the layers before a last one, as BERT has them."""
    return nn.Linear(width, width), nn.GELU(), nn.LayerNorm(width, eps=1e-12)


def _swapped(words: Tokens, where: Tensor) -> Tokens:
    """(B, L, 1), (B,) bool -> (B, L, 1): the caption of the next sample, of all processes, in these places"""
    own = torch.cat([words.value, validity(words)[..., None]], dim=2)
    rank, size = dist.rank(), len(own)
    after = dist.gather(own).roll(-1, 0)[rank * size : (rank + 1) * size]
    shown = torch.where(where[:, None, None], after, own)
    return words._replace(value=shown[..., :1], valid=shown[..., 1].bool())

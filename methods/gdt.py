"""GDT: clips find their sounds, and sounds their clips, where shifts and reversals of time may be told apart.

Patrick, Asano, Kuznetsova, Fong, Henriques, Zweig and Vedaldi, "On compositions of transformations in contrastive
self-supervised learning", ICCV 2021, arXiv:2003.04298. Of each sample there are clips from two times, forward and
backward, with their sounds (section 3). To a transformation embeddings are to be invariant, and then a clip finds the
sounds of both kinds, or distinctive, and then the other kind is wrong, as all other samples are. Defaults are
distinctive to both, hypothesis 6 of the authors' code; which is best is what the paper's tables ask. As in the code,
embeddings that are looked for take no gradient.

Deviations from the authors' code: a clip and its reverse are cropped and colored alike; each right one is told from all
wrong ones, whatever they differ in, where the code composes two transformations from losses of one each; crops are
torchvision's; sounds are log-mel spectrograms; heads have no dropout.

N: batch, M: of all processes, T: transformations of a sample, D: channels of the joint space.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import product
from typing import Any, Literal, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfsup.batch import View
from selfsup.encoder import Encoder
from selfsup.errors import SpecError
from selfsup.knob import Choice, Knobs, Range, knob
from selfsup.method import Batch, Method, Out, TrainInfo
from selfsup.parts.contrastive import told_apart
from selfsup.parts.heads import mlp
from selfsup.parts.patch import pixels, seen_by
from selfsup.parts.tokens import Tokens
from selfsup.sections import Setup
from selfsup.views import Beside, Crop, Views

Relation = Literal["distinctive", "invariant"]
TIME = 2  # axis of clips and spectrograms


@final
class GDT(Method):
    """Each clip finds its sounds among those of the batch, and each sound its clips, by transformations of time."""

    paper, family, backbones, modalities = "2003.04298", "cross-modal", ("vit",), ("video",)
    beside, least_batch = ("audio",), 2
    heads: Any  # of each modality
    alike: Tensor  # (T, T) bool: whether one transformation's embedding is to be that of another

    class Hyper(Knobs):
        shift: Relation | None = knob(
            "distinctive", "to another time of the sample; null: one time", sweep=Choice("distinctive", "invariant")
        )
        reversal: Relation | None = knob(
            "distinctive", "to the order of time; null: forward alone", sweep=Choice("distinctive", "invariant")
        )
        temperature: float = knob(0.07, "of cosines", symbol="τ", sweep=Range(0.05, 0.5, log=True), gt=0)
        hidden: int = knob(512, "width of the projections' hidden layers", gt=0)
        dim: int = knob(256, "channels of the space that both are compared in", sweep=Choice(128, 256), gt=0)
        crop_min: float = knob(0.4, "smallest crop, as a share of the frame", sweep=Range(0.1, 1.0), gt=0, le=1)
        jitter: float = knob(1.0, "share of clips whose colors change", sweep=Choice(0.0, 1.0), ge=0, le=1)

    @classmethod
    def views(cls, hyper: Hyper) -> Views:
        plain = Crop(scale=(hyper.crop_min, 1), ratio=(1, 1), resample="bilinear")
        crop = replace(plain, jitter=hyper.jitter, brightness=0.4, contrast=0.4, saturation=0.4)
        times = range(2 if hyper.shift else 1)
        return Views((*[crop for _ in times], *[Beside(field="audio", of=time) for time in times]))

    @classmethod
    def check(cls, hyper: Hyper, setup: Setup, info: TrainInfo | None = None) -> Iterator[SpecError]:  # noqa: ARG003
        if hyper.shift is None and hyper.reversal is None:
            message = "one time, forward alone, leaves nothing to compose: imagebind and avid are such objectives"
            yield SpecError(message, "hyper.shift", "hyper.reversal")

    def __init__(self, hyper: Hyper, encoders: Mapping[str, Encoder], info: TrainInfo) -> None:
        super().__init__(hyper, encoders, info)
        widths = hyper.hidden, hyper.dim
        self.heads = nn.ModuleDict({name: mlp(own.dim, *widths, out="bias") for name, own in encoders.items()})
        self.hyper, self.orders = hyper, (0, 1) if hyper.reversal else (0,)
        made = torch.tensor([*product(range(2 if hyper.shift else 1), self.orders)])
        same = made[:, None] == made
        same[..., 0] |= hyper.shift == "invariant"
        same[..., 1] |= hyper.reversal == "invariant"
        self.register_buffer("alike", same.all(2), persistent=False)

    def joint(self, modality: str, view: Tokens | Tensor) -> Tensor:
        encoder: Any = self.encoders[modality]
        embedded: Tensor = self.heads[modality](encoder.pooled(view))
        return F.normalize(embedded.float(), dim=1)

    def forward(self, batch: Batch) -> Out:
        half = len(batch.views) // 2
        sight, sound = (
            torch.stack([own for view in views for own in self._orders(view)], dim=1)
            for views in (batch.views[:half], batch.views[half:])
        )
        seen, heard = (
            told_apart(own, other, self.alike, temperature=self.hyper.temperature)
            for own, other in ((sight, sound), (sound, sight))
        )
        return Out((seen + heard) / 2, {"clip_to_sound_loss": seen, "sound_to_clip_loss": heard})

    def _orders(self, view: View) -> Iterator[Tensor]:
        """Yield the embedding (N, D) of a view, and of its reverse if that is another transformation."""
        encoder: Any = self.encoders[view.modality]
        for is_reversed in self.orders:
            shown = seen_by(pixels(view.value, encoder.patch).flip(TIME), encoder.patch) if is_reversed else view.value
            yield self.joint(view.modality, shown)

"""ImageBind: other modalities are bound to images, each by itself, and so to each other, of which no pair is seen.

Girdhar et al., "ImageBind: one embedding space to bind them all", CVPR 2023, arXiv:2305.05665: InfoNCE in both
directions between images, or clips, and each of the others (section 3.2). As in the authors' models, the scale of text
is learned, and others are fixed. frozen: encoders that stay at their first weights, as those of images and text, which
the authors take from OpenCLIP. They have to begin with some: those of `backbone.weights` or `towers`, or all of an
earlier stage, `start: {weights: all}`, which alone has weights for the encoder of text.

Deviations from the authors' code: every sample has all modalities, whose losses are averaged; the authors, whose
training code is not released, take batches of one pair each. Projections, which begin as CLIP's, are trained, where
OpenCLIP's of images and text are kept. The encoder of series is the house's, without dropout before its projection.
Crops are CLIP's.
"""

from collections.abc import Iterator, Mapping
from typing import Literal, final

import torch
from torch import Tensor

from selfsup.encoder import Encoder
from selfsup.errors import SpecError
from selfsup.knob import Choice, Range, knob
from selfsup.method import Batch, Out, TrainInfo
from selfsup.parts.contrastive import paired_nce
from selfsup.sections import Setup
from selfsup.two_towers import Logits, TowerKnobs, TwoTowers, accuracy
from selfsup.views import Beside, Crop, Views

Bound = Literal["audio", "depth", "series", "text"]
SCALES = {"audio": 20.0, "depth": 5.0, "series": 5.0}  # of cosines


@final
class ImageBind(TwoTowers):
    """Images, and what lies beside them, are to find each other among all of the batch, for each modality by itself."""

    paper, family, modalities = "2305.05665", "cross-modal", ("image", "video")
    beside = ("audio", "depth", "series", "text")

    class Hyper(TowerKnobs):
        bound: tuple[Bound, ...] = knob(("audio", "text"), "modalities that are bound to samples", min_length=1)
        frozen: tuple[Bound | Literal["image", "video"], ...] = knob((), "encoders that keep their first weights")
        temperature: float = knob(
            0.07, "of text, at the beginning; it is learned", symbol="τ", sweep=Choice(0.03, 0.07), gt=0
        )
        crop_min: float = knob(0.9, "smallest crop, as a share of the image", sweep=Range(0.3, 1.0), gt=0, le=1)
        flip: float = knob(0.0, "share of images that are mirrored", sweep=Choice(0.0, 0.5), ge=0, le=1)

    @classmethod
    def views(cls, hyper: Hyper) -> Views:
        crop = Crop(scale=(hyper.crop_min, 1.0), flip=hyper.flip)
        return Views((crop, *(Beside(field=name, of=0) for name in sorted(set(hyper.bound)))))

    @classmethod
    def check(cls, hyper: Hyper, setup: Setup, info: TrainInfo | None = None) -> Iterator[SpecError]:
        trained = {setup.modality, *hyper.bound}
        for name in sorted({*hyper.frozen} - trained):
            yield SpecError(f"there is no encoder of {name}, but of {', '.join(sorted(trained))}", "hyper.frozen")
        for name in sorted({*hyper.frozen} & trained - setup.begun) if info else ():
            where = {setup.modality: "backbone.weights or start", "text": "start: {weights: all}"}
            remedy = f"give it trained ones by {where.get(name, f'towers.{name}.weights')}, or train it"
            yield SpecError(f"the encoder of {name} would stay at random weights; {remedy}", "hyper.frozen")

    def __init__(self, hyper: Hyper, encoders: Mapping[str, Encoder], info: TrainInfo) -> None:
        super().__init__(hyper, encoders, info)
        for name in hyper.frozen:
            self.encoders[name].requires_grad_(False)
        self.logits = Logits(hyper.temperature, most=100.0) if "text" in hyper.bound else None

    def forward(self, batch: Batch) -> Out:
        first, *others = batch.views
        image, losses, log = self.joint(first.modality, first.value), [], dict[str, Tensor]()
        for view in others:
            own = self.joint(view.modality, view.value)
            losses.append(paired_nce(image, own, scale=self._scale(view.modality, image)))
            log |= {f"{view.modality}_loss": losses[-1], f"{view.modality}_paired": accuracy(image, own)}
        return Out(torch.stack(losses).mean(), log)

    def after_step(self, t: float, aux: Mapping[str, Tensor]) -> None:  # noqa: ARG002
        if self.logits:
            self.logits.bound()

    def _scale(self, name: str, like: Tensor) -> Tensor:
        return self.logits.scale if name == "text" and self.logits else like.new_tensor(SCALES[name])

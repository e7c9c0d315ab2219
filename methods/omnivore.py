"""Omnivore: one ViT, with a head for each kind of data, names classes of images, of images with depth, and of clips.

Girdhar, Singh, Ravi, van der Maaten, Joulin and Misra, "Omnivore: a single model for many visual modalities", CVPR
2022, arXiv:2201.08377. Of data with samples of several kinds, each is learned by what it has: an image, an image with
its depth, or a clip. An image is a clip of one frame: patches of both are embedded by one kernel, which meets zeros
where an image has no later frames; depth is embedded by a layer of its own and added. Some images with depth are seen
without their color. Numbers of classes may be those of another kind, since each kind has a head of its own.

Images without depth alone are evaluated.

Deviations from the authors' code: the trunk is a ViT, with learned embeddings of the times of a clip and without norms
of embedded patches, where theirs is a Swin transformer with windows in space and time. All kinds are in every batch, as
often as in the data, where each batch of theirs is of one kind. Each view of depth is normalized by itself, where
theirs is over 75. RandAugment, erasing, mixup and CutMix are not here, nor is dropout before the head of clips.

B: batch, R: samples of one kind, N: tokens, P: values of a token, D: channels.
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
from selfsup.method import Batch, Method, Out, ParamOptions, TrainInfo
from selfsup.parts import checks
from selfsup.parts.heads import xavier_linears
from selfsup.parts.labels import accuracy, cross_entropy
from selfsup.parts.patch import side_of
from selfsup.parts.tokens import Tokens
from selfsup.sections import InputShape, Setup
from selfsup.views import Beside, Crop, Views

Kind = Literal["depth", "video"]


@final
class Omnivore(Method):
    """Whatever kind of data a sample is, one trunk encodes it, and the head of its kind names its class."""

    paper, family, backbones = "2201.08377", "cross-modal", ("vit",)
    beside, one_trunk = ("depth", "video"), True
    masks_out = ("image", "depth", "video")
    needs_labels = True

    class Hyper(Knobs):
        kinds: tuple[Kind, ...] = knob(("depth", "video"), "kinds of data beside images", min_length=1)
        smoothing: float = knob(0.1, "share of the truth that all classes share", sweep=Choice(0.0, 0.1), ge=0, lt=1)
        color_drop: float = knob(
            0.5, "share of images with depth that are seen without color", sweep=Choice(0.0, 0.5), ge=0, le=1
        )
        color_jitter: float = knob(
            0.4, "strength of changes of brightness, contrast, saturation and hue of images", ge=0, le=0.5
        )
        crop_min: float = knob(0.08, "smallest crop, as a share of the image", sweep=Range(0.05, 1.0), gt=0, le=1)
        flip: float = knob(0.5, "share of images and clips that are mirrored", sweep=Choice(0.0, 0.5), ge=0, le=1)

    @classmethod
    def views(cls, hyper: Hyper) -> Views:
        scale, jitter = (hyper.crop_min, 1.0), hyper.color_jitter
        image = Crop(
            scale=scale,
            flip=hyper.flip,
            jitter=float(jitter > 0),
            brightness=jitter,
            contrast=jitter,
            saturation=jitter,
            hue=jitter,
        )
        clip = Crop(scale=scale, flip=hyper.flip)
        others = {"depth": Beside(field="depth", of=0), "video": Beside(field="video", crop=clip)}
        return Views((image, *(others[name] for name in sorted(set(hyper.kinds)))), draws=int("depth" in hyper.kinds))

    @classmethod
    def check(cls, hyper: Hyper, setup: Setup, info: TrainInfo | None = None) -> Iterator[SpecError]:  # noqa: ARG003
        if "depth" not in hyper.kinds:
            yield from checks.idle(hyper, "color_drop", "kinds")

    def __init__(self, hyper: Hyper, encoders: Mapping[str, TokenEncoder], info: TrainInfo) -> None:
        super().__init__(hyper, encoders, info)
        self.hyper, encoder, shapes = hyper, self.backbone, info.beside
        self.depth = nn.Linear(side_of(encoder.patch) ** 2, encoder.dim) if "depth" in shapes else None
        if self.depth is not None:
            xavier_linears(self.depth)
        self.later = LaterFrames(encoder, shapes["video"]) if "video" in shapes else None
        heads = {name: nn.Linear(encoder.dim, info.num_classes) for name in ("image", *shapes)}
        for head in heads.values():
            nn.init.normal_(head.weight, std=0.01)
            nn.init.zeros_(head.bias)
        self.heads = nn.ModuleDict(heads)

    def forward(self, batch: Batch) -> Out:
        views = {view.modality: view for view in batch.views}
        rows, label = _shown(views["image"], batch.label)
        is_deep = torch.zeros_like(batch.label, dtype=torch.bool)
        if "depth" in views:
            is_deep = is_deep.index_fill(0, views["depth"].rows, value=True)
        features, is_deep = self._images(batch, rows, is_deep[rows]), is_deep[rows]
        parts = {"image": (features, label.masked_fill(is_deep, -1))}
        if "depth" in views:
            parts["depth"] = features, label.masked_fill(~is_deep, -1)
        if "video" in views:
            rows, label = _shown(views["video"], batch.label)
            parts["video"] = self._clips(_chosen(views["video"], rows)), label
        logits = {name: self.heads[name](features) for name, (features, _) in parts.items()}
        labels = {name: label for name, (_, label) in parts.items()}
        loss = cross_entropy(
            torch.cat([*logits.values()]), torch.cat([*labels.values()]), smoothing=self.hyper.smoothing
        )
        return Out(loss, {f"{name}_accuracy": accuracy(logits[name], label) for name, label in labels.items()})

    def predict(self, view: Tokens | Tensor) -> Tensor:
        logits: Tensor = self.heads["image"](self.backbone.pooled(view))
        return logits

    def param_options(self, name: str, weight: Tensor) -> ParamOptions:  # noqa: ARG002
        """Return the options of the optimizer: what marks a time does not decay."""
        return ParamOptions(no_weight_decay=name.endswith("times"))

    def _images(self, batch: Batch, rows: Tensor, is_deep: Tensor) -> Tensor:
        """(R,), (R,) bool -> (R, D): of images, to whose embeddings depth is added where they have it"""
        image = _chosen(batch.views[0], rows)
        added: Tensor | float = 0.0
        if self.depth is not None:
            has = is_deep[:, None, None]
            added = self.depth(_chosen(batch.views[1], rows).value) * has
            is_gray = has & (batch.draws[rows, :, None] < self.hyper.color_drop)
            image = image._replace(value=image.value.masked_fill(is_gray, 0.0))
        features: Tensor = self.backbone.pooled(image, lambda embedded, position: embedded + added + position)
        return features

    def _clips(self, clip: Tokens) -> Tensor:
        """(R, N, P) tokens of clips -> (R, D): of first frames, to whose embeddings those of later ones are added"""
        assert self.later is not None
        later, first = self.later(clip), clip.value[..., : self.backbone.patch_values]
        tokens = Tokens(first, clip.coord[..., 1:], clip.grid[1:])
        features: Tensor = self.backbone.pooled(tokens, lambda embedded, position: embedded + later + position)
        return features


class LaterFrames(nn.Module):
    """The part of a clip's embeddings that an image's are without: of frames after the first of a token, and of time.

    The kernel of both is the encoder's, for the first frame, and `embed`, for later ones. shape: of clips.
    """

    def __init__(self, encoder: TokenEncoder, shape: InputShape) -> None:
        super().__init__()
        [frames], self.values = shape.leading, encoder.patch_values
        self.embed = nn.Linear((frames - 1) * self.values, encoder.dim, bias=False) if frames > 1 else None
        self.times = nn.Parameter(torch.empty(shape.sizes[0] // frames, encoder.dim))
        xavier_linears(self)
        nn.init.trunc_normal_(self.times, std=0.02)

    def forward(self, clip: Tokens) -> Tensor:
        """(R, N, P) tokens -> (R, N, D); (1, N, D) where they are of one frame"""
        time = F.embedding(clip.coord[:1, :, 0], self.times)
        if self.embed is None:
            return time
        later: Tensor = self.embed(clip.value[..., self.values :])
        return later + time


def _shown(view: View, label: Tensor) -> tuple[Tensor, Tensor]:
    """(B,) -> (R,), (R,): the samples that have a view, and their labels.

    Where none has it, one without a label: each process then has a gradient of all weights, of zeros.
    """
    rows = view.rows
    return (rows, label[rows]) if len(rows) else (rows.new_zeros(1), label.new_full((1,), -1))


def _chosen(view: View, rows: Tensor) -> Tokens:
    """(R,) -> (R, N, P): the tokens of these samples, whose places are the same in all"""
    assert isinstance(view.value, Tokens)
    return view.value._replace(value=view.value.value[rows], coord=view.value.coord[: len(rows)])

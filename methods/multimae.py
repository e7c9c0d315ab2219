"""MultiMAE: one ViT sees some patches of images, of their depth and of their segmentation, and decoders paint the rest.

Bachmann, Mizrahi, Atanov and Zamir, "MultiMAE: Multi-modal multi-task masked autoencoders", ECCV 2022,
arXiv:2204.01678. Defaults are the paper's, of 98 among three times 196 patches. `depth: false` and `seg: false` leave
out a modality; data has depth as `.depth.png`, and segmentation as `.seg.png`, beside its images.

Deviations from the authors' code: decoders read features after the encoder's final norm, where theirs has none before
heads are tuned; its global token is the class token; a segmentation is made coarser by the nearest pixel, not by
Pillow's filter, and its pixels without a class are a class of their own, which is no target; depth that is unknown,
zero after normalization, is none either. Of a sample whose depth is unknown all over its crop, or that has no class
there, no patch of these is seen: hidden ones of the others take their places, in their order, which is random.

B: batch, T: modalities, N: patches of one, K: visible ones of all, D: channels, P: values of a patch.
"""

from collections.abc import Iterator, Mapping
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfsup.dirichletmask import DirichletMask
from selfsup.encoder import TokenEncoder
from selfsup.errors import SpecError
from selfsup.knob import Choice, Knobs, Range, knob
from selfsup.masks import IndexMask
from selfsup.method import Batch, Method, Out, Painting, ParamOptions, TrainInfo
from selfsup.parts import checks, decoder, dist
from selfsup.parts.heads import xavier_linears
from selfsup.parts.patch import patchify, side_of, unpatchify
from selfsup.parts.reconstruction import masked_view, moments
from selfsup.parts.task_decoder import TaskDecoder
from selfsup.parts.tokens import Tokens
from selfsup.sections import Setup
from selfsup.views import Beside, Crop, MapSpec, Views

RGB, DEPTH, SEG = "rgb", "depth", "seg"
KINDS = {RGB: "image", DEPTH: "depth", SEG: "seg"}  # of their pictures


@final
class MultiMAE(Method):
    """Visible patches of all modalities pass one ViT together; a decoder of each modality asks for its own patches."""

    paper, family, backbones = "2204.01678", "reconstruction", ("vit",)
    beside, one_trunk = ("depth",), True
    masks_out = ("depth", "seg")

    class Hyper(Knobs):
        visible: float = knob(
            0.5,
            "patches that the encoder sees, of all modalities together, as a share of one's",
            sweep=Range(0.25, 1.0),
            gt=0,
        )
        alpha: float = knob(
            1.0,
            "how evenly they are of all modalities: the Dirichlet's concentration",
            symbol="α",
            sweep=Choice(0.2, 1.0),
            gt=0,
        )
        depth: bool = knob(True, "depth maps are seen and painted", sweep=Choice(True, False))
        seg: bool = knob(True, "segmentations are seen and painted", sweep=Choice(True, False))
        classes: int = knob(133, "classes of segmentations; 133: COCO's", gt=0)
        class_dim: int = knob(64, "channels of a class's embedding", gt=0)
        stride: int = knob(4, "pixels a side of a segmentation's one", gt=0)
        norm_rgb: bool = knob(
            True, "one more decoder paints patches normalized each by itself", sweep=Choice(True, False)
        )
        decoder_width: int = knob(256, **decoder.WIDTH)
        decoder_depth: int = knob(2, **decoder.DEPTH | {"ge": 0})
        decoder_heads: int = knob(8, **decoder.HEADS)
        crop_min: float = knob(0.2, "smallest crop, as a share of the image's area", sweep=Range(0.05, 1.0), gt=0, le=1)

        _whole_heads = checks.whole_heads("decoder")

    @classmethod
    def views(cls, hyper: Hyper) -> Views:
        rule = DirichletMask(hyper.visible, len(tasks(hyper)), hyper.alpha)
        beside = (Beside(field="depth", of=0),) if hyper.depth else ()
        maps = (MapSpec("seg", hyper.classes),) if hyper.seg else ()
        return Views((Crop(scale=(hyper.crop_min, 1.0), mask=rule), *beside), maps=maps)

    @classmethod
    def check(cls, hyper: Hyper, setup: Setup, info: TrainInfo | None = None) -> Iterator[SpecError]:  # noqa: ARG003
        if setup.grid is None:
            return
        seen, hidden = DirichletMask(hyper.visible, len(tasks(hyper))).typical(setup.grid)
        if not seen > 0 < hidden:
            message = f"{seen} of {seen + hidden} patches are visible; expected one at least, and one hidden"
            yield SpecError(message, "hyper.visible", "backbone.patch_size")
        if hyper.seg and setup.backbone.patch and setup.backbone.patch % hyper.stride:
            message = f"patches of {setup.backbone.patch} pixels do not divide by {hyper.stride}"
            yield SpecError(message, "hyper.stride", "backbone.patch_size")

    def __init__(self, hyper: Hyper, encoders: Mapping[str, TokenEncoder], info: TrainInfo) -> None:
        super().__init__(hyper, encoders, info)
        encoder, self.tasks, self.stride = self.backbone, tasks(hyper), hyper.stride
        side = side_of(encoder.patch)
        places = (side // hyper.stride) ** 2  # of a segmentation's patch
        self.classes = nn.Embedding(hyper.classes + 1, hyper.class_dim) if hyper.seg else None
        inputs = {DEPTH: side**2, SEG: places * hyper.class_dim}
        self.embeds = nn.ModuleDict({name: nn.Linear(inputs[name], encoder.dim) for name in self.tasks[1:]})
        xavier_linears(self.embeds)
        if self.classes is not None:
            nn.init.trunc_normal_(self.classes.weight, std=0.02)
        values = {RGB: encoder.patch_values, DEPTH: side**2, SEG: places * hyper.classes}
        at = {name: number for number, name in enumerate(self.tasks)} | ({"norm_rgb": 0} if hyper.norm_rgb else {})
        sizes = {"width": hyper.decoder_width, "depth": hyper.decoder_depth, "heads": hyper.decoder_heads}
        self.painters = nn.ModuleDict(
            {
                name: TaskDecoder(encoder, values.get(name, values[RGB]), tasks=len(self.tasks), at=number, **sizes)
                for name, number in at.items()
            }
        )

    def forward(self, batch: Batch) -> Out:
        targets, mask, seen = self._read(batch)
        hidden, losses = self._hidden(mask), dict[str, Tensor]()
        for name, painter in self.painters.items():
            at = self.tasks.index(RGB if name == "norm_rgb" else name)
            target = targets[self.tasks[at]]
            error = self._error(name, painter(seen, mask).float(), target)
            losses[name] = mean_of_samples(error, _known(name, target) & hidden[:, at])
        return Out(torch.stack(list(losses.values())).sum(), losses)

    def paintings(self, batch: Batch) -> tuple[Painting, ...]:
        """Return the pictures of each modality: patches that are seen are painted as they are."""
        targets, mask, seen = self._read(batch)
        hidden, made = self._hidden(mask), []
        for at, name in enumerate(self.tasks):
            painted, target, nothing = self.painters[name](seen, mask).float(), targets[name], -1 if name == SEG else 0
            if name == SEG:
                painted = painted.reshape(*target.shape, -1).argmax(3)
            rows = target.masked_fill(hidden[:, at], nothing), painted.where(hidden[:, at], target), target
            made.append(Painting(KINDS[name], *(self._whole(name, row) for row in rows)))
        return tuple(made)

    def _whole(self, name: str, values: Tensor) -> Tensor:
        """(B, N, P) -> (B, C, H, W), or of a segmentation (B, H, W)"""
        side = side_of(self.backbone.patch) // (self.stride if name == SEG else 1)
        whole = unpatchify(values, grid=self.backbone.grid, patch=side)
        return whole[:, 0] if name == SEG else whole

    @classmethod
    def decoded_maps(cls, hyper: Hyper) -> tuple[str, ...]:
        return tasks(hyper)[1:]

    def decoded_map(self, name: str, view: Tokens | Tensor) -> Tensor:
        """-> (B, S * S, 1): standardized depth, or the likeliest class, of images whose patches are all seen"""
        assert isinstance(view, Tokens), "a ViT sees tokens"
        number, places = view.value.shape[1], len(self.tasks) * view.value.shape[1]
        order = torch.arange(places, device=view.value.device).expand(len(view.value), -1)
        mask = IndexMask(keep=order[:, :number], hide=order[:, number:])
        side, batch = side_of(self.backbone.patch), len(view.value)
        hidden = {RGB: view.value, DEPTH: view.value.new_zeros(batch, number, side**2)}
        hidden[SEG] = torch.full((batch, number, (side // self.stride) ** 2), -1, device=view.value.device)
        painted = self.painters[name](self._encoded(view, mask, hidden), mask).float()
        if name == DEPTH:
            return self._whole(name, painted).flatten(1)[..., None]
        classes = painted.unflatten(2, (hidden[SEG].shape[2], -1)).argmax(3)
        whole = self._whole(name, classes).repeat_interleave(self.stride, 1).repeat_interleave(self.stride, 2)
        return whole.flatten(1)[..., None]

    def param_options(self, name: str, weight: Tensor) -> ParamOptions:  # noqa: ARG002
        """Return the options of the optimizer: what marks a place, a modality or a class does not decay."""
        own = ("mask_token", "task_embed", "classes.weight")
        return ParamOptions(no_weight_decay=name.endswith(own))

    def _read(self, batch: Batch) -> tuple[dict[str, Tensor], IndexMask, Tensor]:
        """-> of each modality (B, N, P); which patches are seen; (B, prefix + K, D), what the encoder makes of these"""
        tokens, mask = masked_view(batch.views[0])
        targets = self._targets(batch, tokens)
        mask = self._of_known(mask, targets)
        return targets, mask, self._encoded(tokens, mask, targets)

    def _hidden(self, mask: IndexMask) -> Tensor:
        """-> (B, T, N, 1) bool: the patches that are not seen"""
        return mask.removed.view(len(mask.keep), len(self.tasks), -1, 1)

    def _targets(self, batch: Batch, tokens: Tokens) -> dict[str, Tensor]:
        """Return of each modality (B, N, P): values, or classes, which are -1 where there is none"""
        targets = {RGB: tokens.value}
        for view in batch.views[1:]:
            assert isinstance(view.value, Tokens)
            targets[DEPTH] = view.value.value
        for map_ in batch.maps:
            middle = self.stride // 2
            coarse = map_[:, None, middle :: self.stride, middle :: self.stride]
            targets[SEG] = patchify(coarse, side_of(self.backbone.patch) // self.stride).value
        return targets

    def _of_known(self, mask: IndexMask, targets: Mapping[str, Tensor]) -> IndexMask:
        """Return the mask that sees no patch of a modality of which nothing is known in a sample."""
        lacking = torch.stack([~_known(name, targets[name]).flatten(1).any(1) for name in self.tasks], dim=1)
        is_last = lacking.repeat_interleave(targets[RGB].shape[1], dim=1).take_along_dim(mask.order, 1)
        order = mask.order.take_along_dim(is_last.byte().argsort(dim=1, stable=True), 1)
        seen = mask.keep.shape[1]
        return IndexMask(keep=order[:, :seen], hide=order[:, seen:])

    def _encoded(self, tokens: Tokens, mask: IndexMask, targets: Mapping[str, Tensor]) -> Tensor:
        """-> (B, prefix + K, D): of the visible patches, in the order of the mask"""
        others = [self.embeds[name](self._input(name, targets[name])) for name in self.tasks[1:]]
        number = tokens.value.shape[1]
        stacked = tokens._replace(
            value=tokens.value.repeat(1, len(self.tasks), 1), coord=tokens.coord.repeat(1, len(self.tasks), 1)
        )

        def join(embedded: Tensor, position: Tensor | float) -> Tensor:
            own = torch.cat([embedded.new_zeros(len(mask.keep), number, embedded.shape[2]), *others], dim=1)
            chosen = own.take_along_dim(mask.keep[..., None], dim=1)
            return torch.where((mask.keep < number)[..., None], embedded, chosen.to(embedded.dtype)) + position

        encoded: Tensor = self.backbone(stacked, mask.keep, join=join)
        return encoded

    def _input(self, name: str, target: Tensor) -> Tensor:
        """(B, N, P) -> (B, N, values): depth as it is, classes as their embeddings, the last one where there is none"""
        if self.classes is None or name != SEG:
            return target
        none = self.classes.num_embeddings - 1
        embedded: Tensor = self.classes(target.where(target >= 0, none)).flatten(2)
        return embedded

    def _error(self, name: str, painted: Tensor, target: Tensor) -> Tensor:
        """(B, N, values), (B, N, P) -> (B, N, P)"""
        if name == SEG:
            scores = painted.reshape(*target.shape, -1).movedim(3, 1)
            return F.cross_entropy(scores, target, ignore_index=-1, reduction="none")
        target = target.float()
        if name == DEPTH:
            return (painted - target).abs()
        if name == "norm_rgb":
            mean, deviation = moments(target)
            target = (target - mean) / deviation
        return (painted - target).square()


def tasks(hyper: MultiMAE.Hyper) -> tuple[str, ...]:
    """Return the modalities that are seen and painted, in the order of their tokens."""
    return (RGB, *([DEPTH] if hyper.depth else []), *([SEG] if hyper.seg else []))


def _known(name: str, target: Tensor) -> Tensor:
    """(B, N, P) -> (B, N, P) or (B, N, 1) bool: the values that are known, so that they count"""
    if name == SEG:
        return target >= 0
    return target != 0 if name == DEPTH else torch.ones_like(target[..., :1], dtype=torch.bool)


def mean_of_samples(error: Tensor, counts: Tensor) -> Tensor:
    """(B, N, P), (B, N, 1 or P) bool -> (): the mean of what counts of each sample, then of samples where any does.

    Over W processes each returns its own share; the mean of the shares is the loss of the whole batch.
    """
    counts = counts.expand_as(error)
    number = counts.sum((1, 2))
    own = error.where(counts, 0.0).sum((1, 2)) / number.clamp(min=1)
    return own.sum() / dist.mean((number > 0).sum().to(own.dtype)).clamp(min=1 / dist.world_size())

"""MAViL: hidden patches of clips and sounds are painted from visible ones of both, which also find each other.

Huang, Sharma, Xu, Ryali, Fan, Li, Li, Ghosh, Malik and Feichtenhofer, "MAViL: masked audio-video learners", NeurIPS
2023, arXiv:2212.08071. Stage 1 paints pixels and spectrograms. With `target: features` it is stage 2, which predicts of
hidden patches what stage 1, the spec's `teacher`, makes of the whole clip with its whole sound. In both, the encoders'
means of visible patches tell samples apart: between sight and sound, and between two masks of each.

There is no authors' code: their repository holds none. Two joint blocks, decoders of eight blocks, 512 channels and 16
heads, and masks of 0.8 are the paper's; weights and temperatures of the contrasts are from memory of it, and that
decoders attend to all. The second mask shows patches that the first hides, where the paper draws it by itself; stage 2
predicts hidden patches alone; encoders have class tokens, which pass joint blocks and decoders, too; crops are MAE's.

B: batch, N: patches of a modality, K: visible ones, M: hidden ones, D: channels of its encoder, d: of the joint blocks.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Literal, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfsup.batch import View
from selfsup.encoder import TokenEncoder
from selfsup.errors import SpecError
from selfsup.knob import Choice, Knobs, Range, knob
from selfsup.masks import RandomMask
from selfsup.method import Batch, Lesson, Method, Out, TrainInfo
from selfsup.parts import checks, decoder
from selfsup.parts.contrastive import batch_nce, paired_nce
from selfsup.parts.decoder import Decoder
from selfsup.parts.joint_blocks import JointBlocks
from selfsup.parts.reconstruction import masked_mse, masked_view
from selfsup.parts.targets import PixelTarget
from selfsup.parts.tokens import Tokens
from selfsup.sections import Setup
from selfsup.views import Beside, Crop, Views


@final
class MAViL(Method):
    """Reconstruction from both, contrast between both and within each; then once more, of what that has learned."""

    paper, family, backbones, modalities = "2212.08071", "cross-modal", ("vit",), ("image", "video")
    beside = ("audio",)
    learns_from = "features"  # where these are the target
    encoders: Any

    class Hyper(Knobs):
        target: Literal["pixels", "features"] = knob(
            "pixels", "what is predicted: values of patches, or the joint features of an earlier stage"
        )
        norm_pix_loss: bool = knob(True, "paint each patch normalized by its own mean and deviation")
        mask_ratio: float = knob(0.8, "share of patches hidden of clips", sweep=Range(0.5, 0.9), gt=0, lt=1)
        audio_ratio: float = knob(0.8, "share of patches hidden of sounds", sweep=Range(0.5, 0.9), gt=0, lt=1)
        inter_weight: float = knob(
            0.1, "of the contrast of sight and sound", symbol="α", sweep=Choice(0.0, 0.1, 0.3), ge=0
        )
        intra_weight: float = knob(
            0.01, "of the contrast of two masks of each", symbol="β", sweep=Choice(0.0, 0.01, 0.1), ge=0
        )
        inter_temperature: float = knob(0.1, "of the first", symbol="τ", sweep=Range(0.05, 1.0, log=True), gt=0)
        intra_temperature: float = knob(1.0, "of the second", sweep=Range(0.05, 1.0, log=True), gt=0)
        fusion_depth: int = knob(2, "blocks that tokens of both pass together", sweep=Choice(1, 2, 4), ge=1, le=1000)
        decoder_width: int = knob(512, **decoder.WIDTH)
        decoder_depth: int = knob(8, **decoder.DEPTH)
        decoder_heads: int = knob(16, **decoder.HEADS)
        crop_min: float = knob(0.2, "smallest crop, as a share of the image's area", sweep=Range(0.05, 1.0), gt=0, le=1)

        _whole_heads = checks.whole_heads("decoder")

    @classmethod
    def lesson(cls, hyper: Hyper) -> Lesson | None:
        return cls.learns_from if hyper.target == "features" else None

    @classmethod
    def views(cls, hyper: Hyper) -> Views:
        sight, sound = RandomMask(hyper.mask_ratio), RandomMask(hyper.audio_ratio)
        return Views((Crop(scale=(hyper.crop_min, 1.0), mask=sight), Beside(field="audio", of=0, mask=sound)))

    @classmethod
    def check(cls, hyper: Hyper, setup: Setup, info: TrainInfo | None = None) -> Iterator[SpecError]:
        yield from checks.mask_leaves_both(RandomMask(hyper.mask_ratio), hyper.mask_ratio, setup.grid)
        rule, grid = RandomMask(hyper.audio_ratio), setup.grid_of("audio")
        yield from checks.mask_leaves_both(rule, hyper.audio_ratio, grid, "input.audio", knob="audio_ratio")
        if hyper.target != "pixels":
            yield from checks.idle(hyper, "norm_pix_loss", "target")
        if info and info.teacher and not isinstance(info.teacher.method, cls):
            name = type(info.teacher.method).__name__
            yield SpecError(f"it predicts features of an earlier stage of MAViL, not of {name}", "teacher.from")

    def __init__(self, hyper: Hyper, encoders: Mapping[str, TokenEncoder], info: TrainInfo) -> None:
        super().__init__(hyper, encoders, info)
        self.hyper, self.teacher = hyper, info.teacher
        self.joint_blocks = JointBlocks(encoders, depth=hyper.fusion_depth)
        self.targets = {name: PixelTarget(own, normalized=hyper.norm_pix_loss) for name, own in encoders.items()}
        values = self._same_patches(info.teacher.method).joint_blocks.dim if info.teacher else None
        self.decoders = nn.ModuleDict(
            {
                name: Decoder(
                    own,
                    width=hyper.decoder_width,
                    depth=hyper.decoder_depth,
                    heads=hyper.decoder_heads,
                    dim=self.joint_blocks.dim,
                    values=values,
                )
                for name, own in encoders.items()
            }
        )

    def forward(self, batch: Batch) -> Out:
        views, hyper, log = {view.modality: view for view in batch.views}, self.hyper, dict[str, Tensor]()
        seen = {name: self._seen(view) for name, view in views.items()}
        targets = self._targets(batch)
        for name, own in self.joint_blocks(seen).items():
            tokens, mask = masked_view(views[name])
            painter: Any = self.decoders[name]
            hidden = painter(own, mask, tokens)[:, mask.keep.shape[1] :]
            log[f"{name}_error"] = masked_mse(painter.paint(hidden), targets[name])
        loss = torch.stack([*log.values()]).sum()
        means = {name: self._mean(name, tokens) for name, tokens in seen.items()}
        if hyper.inter_weight:
            unit = [F.normalize(mean, dim=1) for mean in means.values()]
            log["inter"] = paired_nce(*unit, scale=loss.new_tensor(1 / hyper.inter_temperature))
            loss = loss + hyper.inter_weight * log["inter"]
        if hyper.intra_weight:
            again = {name: self._mean(name, self._seen(view, again=True)) for name, view in views.items()}
            both = [batch_nce(means[name], again[name], temperature=hyper.intra_temperature) for name in views]
            log["intra"] = torch.stack(both).mean()
            loss = loss + hyper.intra_weight * log["intra"]
        return Out(loss, log)

    def joint(self, modality: str, view: Tokens | Tensor) -> Tensor:
        return F.normalize(self._mean(modality, self.encoders[modality](view)), dim=1)

    def contexts(self, batch: Batch) -> dict[str, Tensor]:
        """-> (B, N, d) of each modality: joint features of all patches of both, in single precision"""
        seen = {view.modality: self.encoders[view.modality](view.value) for view in batch.views}
        made = self.joint_blocks(seen)
        return {name: own[:, self.encoders[name].num_prefix :].float() for name, own in made.items()}

    def _seen(self, view: View, *, again: bool = False) -> Tensor:
        """-> (B, num_prefix + K, D): features of visible patches; again: of as many of those that are hidden"""
        tokens, mask = masked_view(view)
        keep = mask.hide[:, : mask.keep.shape[1]] if again else mask.keep
        features: Tensor = self.encoders[view.modality](tokens, keep)
        return features

    def _mean(self, name: str, features: Tensor) -> Tensor:
        """(B, num_prefix + K, D) -> (B, D)"""
        return features[:, self.encoders[name].num_prefix :].float().mean(dim=1)

    def _targets(self, batch: Batch) -> dict[str, Tensor]:
        """-> (B, M, P) of each modality, or (B, M, d): of hidden patches"""
        views = {view.modality: masked_view(view) for view in batch.views}
        if self.teacher is None:
            return {name: self.targets[name].of(tokens, mask.hide) for name, (tokens, mask) in views.items()}
        with torch.no_grad():
            made = self.teacher.method.contexts(batch)
        return {name: own.take_along_dim(views[name][1].hide[..., None], dim=1) for name, own in made.items()}

    def _same_patches(self, earlier: Any) -> Any:
        """Return an earlier stage. Raises SpecError where its patches are others."""
        for name, own in self.encoders.items():
            other = earlier.encoders[name]
            if (own.grid, own.patch) != (other.grid, other.patch):
                sizes = [f"{'x'.join(map(str, one.grid))} of {one.patch} points" for one in (other, own)]
                message = f"the earlier stage's patches of {name} are {sizes[0]}, and these {sizes[1]}"
                raise SpecError(f"{message}; give both the same input and patch size", "teacher.from", f"input.{name}")
        return earlier

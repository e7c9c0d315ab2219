"""MAE: a ViT encodes the visible patches of an image, and a light decoder reconstructs the pixels of the others.

He, Chen, Xie, Li, Dollár and Girshick, "Masked autoencoders are scalable vision learners", CVPR 2022, arXiv:2111.06377.
Defaults are the paper's baseline, whose target is plain pixels; its best models set norm_pix_loss.

Deviations from the authors' code: none but those of all objectives is known.

B: batch, N: tokens, P: values of a patch.
"""

from collections.abc import Iterator, Mapping
from typing import Literal, Self, final

from pydantic import model_validator
from torch import Tensor

from selfsup.encoder import TokenEncoder
from selfsup.errors import SpecError
from selfsup.knob import Choice, Knobs, Range, knob
from selfsup.masks import GridMask, IndexMask, RandomMask
from selfsup.method import Batch, Method, Out, TrainInfo
from selfsup.parts import checks
from selfsup.parts.decoder import Decoder
from selfsup.parts.reconstruction import masked_mse, moments
from selfsup.parts.tokens import Tokens
from selfsup.sections import Setup
from selfsup.views import Crop, Views


@final
class MAE(Method):
    """A ViT encodes the visible patches; a light decoder, thrown away afterwards, paints the hidden ones from that."""

    paper, family, backbones = "2111.06377", "reconstruction", ("vit",)
    modalities = None  # any: what it learns from a view does not depend on its kind
    separable = True

    class Hyper(Knobs):
        mask_ratio: float = knob(0.75, "share of patches hidden from the encoder", sweep=Range(0.4, 0.9), gt=0, lt=1)
        decoder_width: int = knob(512, "channels of the decoder", sweep=Choice(128, 256, 512), gt=0, multiple_of=4)
        decoder_depth: int = knob(8, "transformer blocks of the decoder", sweep=Choice(1, 2, 4, 8), ge=1, le=1000)
        decoder_heads: int = knob(16, "attention heads of the decoder", gt=0)
        mask: Literal["random", "grid"] = knob("random", "hidden: any patches, or all but one of every four (figure 6)")
        norm_pix_loss: bool = knob(
            False, "paint each patch normalized by its own mean and deviation", sweep=Choice(False, True)
        )
        crop_min: float = knob(0.2, "smallest crop, as a share of the image's area", sweep=Range(0.05, 1.0), gt=0, le=1)

        @model_validator(mode="after")
        def _whole_heads(self) -> Self:
            if self.decoder_width % self.decoder_heads:
                raise ValueError(
                    f"decoder_width {self.decoder_width} does not divide into {self.decoder_heads} decoder_heads"
                )
            return self

    @classmethod
    def views(cls, hyper: Hyper) -> Views:
        mask = GridMask() if hyper.mask == "grid" else RandomMask(hyper.mask_ratio)
        return Views((Crop(scale=(hyper.crop_min, 1.0), mask=mask),))

    @classmethod
    def check(cls, hyper: Hyper, setup: Setup, info: TrainInfo | None = None) -> Iterator[SpecError]:  # noqa: ARG003
        if hyper.mask == "grid" and hyper.mask_ratio != 0.75:
            message = f"a grid keeps one of every four patches, a mask ratio of 0.75, not {hyper.mask_ratio:g}"
            yield SpecError(f"{message}; leave it out, or use mask: random", "hyper.mask_ratio", "hyper.mask")
        yield from checks.mask_leaves_both(RandomMask(hyper.mask_ratio), hyper.mask_ratio, setup.grid)

    def __init__(self, hyper: Hyper, encoders: Mapping[str, TokenEncoder], info: TrainInfo) -> None:
        super().__init__(hyper, encoders, info)
        self.decoder = Decoder(
            self.backbone, width=hyper.decoder_width, depth=hyper.decoder_depth, heads=hyper.decoder_heads
        )
        self.norm_pix_loss = hyper.norm_pix_loss

    def forward(self, batch: Batch) -> Out:
        tokens, mask = masked(batch)
        target = tokens.value.take_along_dim(mask.hide[..., None], dim=1)
        if self.norm_pix_loss:
            mean, deviation = moments(target)
            target = (target - mean) / deviation
        hidden = self._decoded(tokens, mask)[:, mask.keep.shape[1] :]
        return Out(masked_mse(self.decoder.paint(hidden), target))

    def reconstruct(self, batch: Batch) -> Tensor:
        """-> (B, N, P): every patch as it is painted; with norm_pix_loss, at the true patch's mean and deviation."""
        tokens, mask = masked(batch)
        places = self._decoded(tokens, mask).take_along_dim(mask.restore[..., None], dim=1)
        painted: Tensor = self.decoder.paint(places).float()
        if self.norm_pix_loss:
            mean, deviation = moments(tokens.value)
            painted = painted * deviation + mean
        return painted

    def _decoded(self, tokens: Tokens, mask: IndexMask) -> Tensor:
        """-> (B, N, width): the visible places, then the hidden ones, as the mask lists them"""
        decoded: Tensor = self.decoder(self.backbone(tokens, mask.keep), mask)
        return decoded


def masked(batch: Batch) -> tuple[Tokens, IndexMask]:
    """Return the tokens and the mask of the one view that `MAE.views` asks for."""
    [view] = batch.views
    assert isinstance(view.value, Tokens)
    assert isinstance(view.mask, IndexMask)
    return view.value, view.mask

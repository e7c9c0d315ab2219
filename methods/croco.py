"""CroCo: hidden patches of an image are painted from the few that are visible, and from a second view of its scene.

Weinzaepfel, Leroy, Lucas, Brégier, Cabon, Arora, Antsfeld, Chidlovskii, Csurka and Revaud, "CroCo: self-supervised
pre-training for 3D vision tasks by cross-view completion", NeurIPS 2022, arXiv:2210.10716. Defaults are the authors',
with normalized pixels and blocks that read the second view by cross-attention. Data has that view as `.right.jpg`
beside each image; nothing is mirrored, and each view is cut by itself.

Deviations from the authors' code: the encoder has a class token, which the decoder leaves out, so that evaluations
should read the mean of patches (backbone.pool); what is cut of a view is resized to the encoder's size. The paper's
homographies and rotations are not here, which the authors left out later, as they did not help.

B: batch, N: patches, K: visible ones, P: values of a patch.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import final

from torch import Tensor

from selfsup.encoder import TokenEncoder
from selfsup.errors import SpecError
from selfsup.knob import Choice, Knobs, Range, knob
from selfsup.masks import RandomMask
from selfsup.method import Batch, Method, Out, TrainInfo
from selfsup.parts import checks, decoder
from selfsup.parts.cross_decoder import CrossDecoder
from selfsup.parts.reconstruction import masked_view
from selfsup.parts.targets import PixelTarget
from selfsup.parts.tokens import Tokens
from selfsup.sections import Setup
from selfsup.views import Beside, Crop, Views


@final
class CroCo(Method):
    """One ViT encodes both views, the first with most patches hidden; the decoder's blocks read the second."""

    paper, family, backbones = "2210.10716", "reconstruction", ("vit",)
    beside, one_trunk = ("right",), True
    separable = True

    class Hyper(Knobs):
        mask_ratio: float = knob(0.9, "share of patches hidden of the first view", sweep=Range(0.75, 0.95), gt=0, lt=1)
        norm_pix_loss: bool = knob(
            True, "paint each patch normalized by its own mean and deviation", sweep=Choice(False, True)
        )
        decoder_width: int = knob(512, **decoder.WIDTH)
        decoder_depth: int = knob(8, **decoder.DEPTH)
        decoder_heads: int = knob(16, **decoder.HEADS)
        crop_share: float = knob(
            0.875, "side of the square that is cut of each view, as a share of its shorter one", gt=0, le=1
        )
        color_jitter: float = knob(
            0.4, "strength of that of brightness, contrast and saturation, of each view by itself", ge=0, le=1
        )

        _whole_heads = checks.whole_heads("decoder")

    @classmethod
    def views(cls, hyper: Hyper) -> Views:
        strength = hyper.color_jitter
        crop = Crop(
            share=hyper.crop_share,
            flip=0.0,
            jitter=1.0 if strength else 0.0,
            brightness=strength,
            contrast=strength,
            saturation=strength,
        )
        return Views((replace(crop, mask=RandomMask(hyper.mask_ratio)), Beside(field="right", crop=crop)))

    @classmethod
    def check(cls, hyper: Hyper, setup: Setup, info: TrainInfo | None = None) -> Iterator[SpecError]:  # noqa: ARG003
        yield from checks.mask_leaves_both(RandomMask(hyper.mask_ratio), hyper.mask_ratio, setup.grid)

    def __init__(self, hyper: Hyper, encoders: Mapping[str, TokenEncoder], info: TrainInfo) -> None:
        super().__init__(hyper, encoders, info)
        self.target = PixelTarget(self.backbone, normalized=hyper.norm_pix_loss)
        self.decoder = CrossDecoder(
            self.backbone, width=hyper.decoder_width, depth=hyper.decoder_depth, heads=hyper.decoder_heads
        )

    def forward(self, batch: Batch) -> Out:
        tokens, mask = masked_view(batch.views[0])
        hidden = self._decoded(batch)[:, mask.keep.shape[1] :]
        return Out(self.target.loss(self.decoder.paint(hidden), self.target.of(tokens, mask.hide)))

    def reconstruct(self, batch: Batch) -> Tensor:
        """-> (B, N, P): every patch as it is painted; with norm_pix_loss, at the true patch's mean and deviation."""
        tokens, mask = masked_view(batch.views[0])
        places = self._decoded(batch).take_along_dim(mask.restore[..., None], dim=1)
        return self.target.pixels(self.decoder.paint(places).float(), tokens)

    def _decoded(self, batch: Batch) -> Tensor:
        """-> (B, N, width): the visible places, then the hidden ones, as the mask lists them"""
        (tokens, mask), second = masked_view(batch.views[0]), batch.views[1].value
        assert isinstance(second, Tokens)
        decoded: Tensor = self.decoder(self.backbone(tokens, mask.keep), mask, self.backbone(second))
        return decoded

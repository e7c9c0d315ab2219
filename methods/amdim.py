"""AMDIM: features of one view predict those of another across the scales of a CNN, by mutual information.

Bachman, Hjelm and Buchwalter, "Learning representations by maximizing mutual information across views", NeurIPS 2019,
arXiv:1906.00910. Defaults are the paper's for ImageNet; aspect ratios, one flip for both views and how embeddings begin
are its code's, and so is the penalty of 0.05 in the recipe.

Deviations from the authors' code: the encoder is any CNN, whose maps are its last two stages, averaged down, and whose
pooled features are embedded, too; theirs has no padding, and ends in the embedding of the image. There is no mixture of
features (section 3.7). Batch normalization sees the whole batch, not each GPU's part of it. The optimizer is AdamW,
where theirs is Adam with the decay in the gradient.
"""

from collections.abc import Mapping
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfsup.encoder import PooledEncoder
from selfsup.knob import Choice, Knobs, Range, knob
from selfsup.method import Batch, Method, Out, TrainInfo
from selfsup.parts.contrastive import places_nce
from selfsup.parts.places import at_each, places
from selfsup.parts.pretext import mirrored
from selfsup.views import Crop, Views


@final
class AMDIM(Method):
    """Features of one view find those of the other among those of all images: whole to place, and place to place."""

    paper, family, backbones = "1906.00910", "contrastive", ("cnn",)

    class Hyper(Knobs):
        dim: int = knob(1536, "channels of the space that scales are compared in", sweep=Choice(256, 512, 1536), gt=0)
        clip: float = knob(20.0, "soft bound of scores", symbol="c", sweep=Choice(5.0, 10.0, 20.0), gt=0)
        penalty: float = knob(0.04, "weight of squared scores", symbol="λ", sweep=Range(0.001, 0.4, log=True), ge=0)
        fine: int = knob(7, "rows and columns of the finer map, at most", ge=1)
        coarse: int = knob(5, "rows and columns of the coarser map, at most", ge=1)
        crop_min: float = knob(0.3, "smallest crop, as a share of the image", sweep=Range(0.05, 0.5), gt=0, le=1)

    @classmethod
    def views(cls, hyper: Hyper) -> Views:
        crop = Crop(
            scale=(hyper.crop_min, 1),
            ratio=(0.7, 1.4),
            flip=0.0,
            jitter=0.8,
            brightness=0.4,
            contrast=0.4,
            saturation=0.4,
            hue=0.1,
            gray=0.25,
        )
        return Views((crop, crop), draws=3)

    def __init__(self, hyper: Hyper, encoders: Mapping[str, PooledEncoder], info: TrainInfo) -> None:
        super().__init__(hyper, encoders, info)
        *_, fine, coarse = self.backbone.widths
        self.whole, self.coarse, self.fine = (Embedding(width, hyper.dim) for width in (coarse, coarse, fine))
        self.hyper = hyper

    def forward(self, batch: Batch) -> Out:
        *where, mirror = batch.draws.unbind(1)
        images = [view.value for view in batch.views if isinstance(view.value, Tensor)]  # a CNN never sees tokens
        both = [self._scales(mirrored(image, mirror)) for image in images]
        terms = [
            places_nce(antecedent, consequent, clip=self.hyper.clip)
            for (whole, coarse, _), (_, *others), draw in zip(both, reversed(both), where, strict=True)
            for antecedent, consequent in ((whole, others[0]), (whole, others[1]), (_one(coarse, draw), others[0]))
        ]
        losses, penalties = (torch.stack(values).sum() / len(both) for values in zip(*terms, strict=True))
        return Out(losses + self.hyper.penalty * penalties, {"nce": losses, "squared_score": penalties / 3})

    def _scales(self, view: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """-> (N, D), (N, P, D), (N, Q, D): embedded features of the image, of places, of finer places."""
        *_, fine, coarse = self.backbone.stages(view)
        at_coarse, at_fine = _at_most(coarse, self.hyper.coarse), _at_most(fine, self.hyper.fine)
        return self.whole(coarse.mean((2, 3))), at_each(self.coarse, at_coarse), at_each(self.fine, at_fine)


class Embedding(nn.Module):
    """(B, C) -> (B, D): a linear layer and a hidden one beside it, batch-normalized.

    As in the authors' code, it begins as near to the identity as D allows: the hidden layer adds nothing yet.
    """

    def __init__(self, width: int, dim: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, dim)
        last = nn.Linear(dim, dim, bias=False)
        self.hidden = nn.Sequential(nn.Linear(width, dim, bias=False), nn.ReLU(), last)
        self.norm = nn.BatchNorm1d(dim)
        nn.init.zeros_(last.weight)
        if dim >= width:
            nn.init.uniform_(self.linear.weight, -0.01, 0.01)
            self.linear.weight.data.fill_diagonal_(1.0)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.norm(self.linear(x) + self.hidden(x))
        return out


def _at_most(maps: Tensor, side: int) -> Tensor:
    """(N, C, H, W) -> (N, P, C): averaged down to `side` rows and columns, if there are more."""
    return places(F.adaptive_avg_pool2d(maps, (min(side, maps.shape[2]), min(side, maps.shape[3]))))


def _one(features: Tensor, draws: Tensor) -> Tensor:
    """(N, P, D), (N,) -> (N, D): a random place of each image."""
    number = features.shape[1]
    return features.take_along_dim((draws * number).long().clamp_max(number - 1)[:, None, None], dim=1)[:, 0]

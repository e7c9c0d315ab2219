"""PointContrast: a place of a cloud looks alike in two views that are cut and turned apart, and unlike other places.

Xie, Gu, Guo, Qi, Guibas and Litany, "PointContrast: unsupervised pre-training for 3D point cloud understanding", ECCV
2020, arXiv:2007.10985: both of its losses. Defaults are those of the authors' code and its scripts; how far views are
cut and turned apart are knobs of `input.points`.

Deviations from the authors' code: both views are of one cloud, where theirs are two scans that overlap. The encoder is
a ViT of groups, not a sparse U-Net, and a linear layer stands on features that are interpolated between their centers,
as PointNet++'s (arXiv:1706.02413). Places are the centers of the first view's groups near which the second has a point,
found by the poses of both; all of them in the batch are compared, where theirs draw some on each GPU. The hardest of
the others is the nearest that does not lie at the same place, where theirs leave out a place whose nearest one does.

B: clouds, G: groups, k: points of each, P: places.
"""

from collections.abc import Iterator, Mapping
from typing import Literal, final

import torch
from torch import Tensor, nn

from selfsup.batch import View
from selfsup.encoder import TokenEncoder
from selfsup.errors import SpecError
from selfsup.knob import Choice, Knobs, Range, knob
from selfsup.method import Batch, Method, Out, TrainInfo
from selfsup.parts import checks, dist
from selfsup.parts.contrastive import hardest_contrast, matched_nce
from selfsup.parts.groups import AXES, distances, in_cloud, interpolated, members
from selfsup.parts.places import places
from selfsup.parts.tokens import Tokens
from selfsup.sections import Setup
from selfsup.views import Crop, Views


@final
class PointContrast(Method):
    """Features of a place of a cloud in one view find those of the same place in the other, among all other places."""

    paper, family, backbones, modalities = "2007.10985", "contrastive", ("vit",), ("points",)

    class Hyper(Knobs):
        loss: Literal["nce", "hardest"] = knob(
            "nce", "PointInfoNCE, or the hardest-contrastive loss", sweep=Choice("nce", "hardest")
        )
        temperature: float = knob(0.4, "of nce", symbol="τ", sweep=Range(0.05, 1.0, log=True), gt=0)
        pull: float = knob(0.1, "squared distance from which hardest draws a place's features together", ge=0)
        push: float = knob(1.4, "distance up to which hardest pushes those of other places away", gt=0)
        reach: float = knob(0.1, "how near one is the same place, in radii of a cloud", sweep=Range(0.02, 0.3), gt=0)
        dim: int = knob(32, "channels of the space that places are compared in", sweep=Choice(16, 32, 64, 128), gt=0)

    @classmethod
    def views(cls, hyper: Hyper) -> Views:  # noqa: ARG003
        return Views((Crop(), Crop()))

    @classmethod
    def check(cls, hyper: Hyper, setup: Setup, info: TrainInfo | None = None) -> Iterator[SpecError]:  # noqa: ARG003
        for name in ("temperature",) if hyper.loss == "hardest" else ("pull", "push"):
            yield from checks.idle(hyper, name, "loss")

    def __init__(self, hyper: Hyper, encoders: Mapping[str, TokenEncoder], info: TrainInfo) -> None:
        super().__init__(hyper, encoders, info)
        self.head, self.hyper = nn.Linear(self.backbone.dim, hyper.dim), hyper

    def forward(self, batch: Batch) -> Out:
        with torch.no_grad():
            shown = [self._points(view) for view in batch.views]
            centers = [points[:, :, 0] for points in shown]
            place = centers[0]
            matched = (distances(place, shown[1].flatten(1, 2)).amin(2) < self.hyper.reach).flatten()
        a, b = (self._features(view, own, place) for view, own in zip(batch.views, centers, strict=True))
        log = {"matched": matched.float().mean()}
        if self.hyper.loss == "nce":
            return Out(matched_nce(a, b, matched, temperature=self.hyper.temperature), log)
        is_near = self._near(place, batch.sample)
        apart, lacking = hardest_contrast(a, b, matched, is_near, pull=self.hyper.pull, push=self.hyper.push)
        return Out(apart + lacking, log | {"matches_loss": apart, "others_loss": lacking})

    def _points(self, view: View) -> Tensor:
        """-> (B, G, k, 3): where in their clouds the points of groups lie, the center of each first"""
        assert isinstance(view.value, Tokens), "a ViT sees groups of points"
        points = members(view.value.value.detach().float(), self.backbone.groups.size)[..., :AXES]
        return in_cloud(points.flatten(1, 2), view.box).view_as(points)

    def _features(self, view: View, centers: Tensor, place: Tensor) -> Tensor:
        """(B, G, 3), (B, P, 3) -> (B * P, dim): what an encoder says of places, as they are compared"""
        between = interpolated(places(self.backbone.spatial(view.value)), centers, place)
        embedded: Tensor = self.head(between.flatten(0, 1))
        return embedded

    def _near(self, place: Tensor, sample: Tensor) -> Tensor:
        """(B, P, 3), (B,) -> (B * P, W * B * P) bool: which places of all W processes lie within reach of this one's"""
        flat, own = place.flatten(0, 1), sample[:, None].expand(place.shape[:2]).flatten()
        is_same = own[:, None] == dist.gather(own)
        return is_same & (distances(flat, dist.gather(flat)) < self.hyper.reach)

"""Depth as an objective's own decoder paints it of images alone, which the encoder sees whole: nothing is learned.

MultiMAE, Bachmann et al., ECCV 2022, arXiv 2204.01678, paints it so (figures 1 and 4). Since each map was standardized
by itself, it is set to scale by that of Ranftl et al., "Towards robust monocular depth estimation", TPAMI 2020, arXiv
1907.01341, section 5: in each image the factor and the shift by which squared errors are least. Errors are those of
`depth`.

Deviations: a factor below zero counts as zero, so that no map is turned inside out; whole images, squashed to the
encoder's size.
"""

from collections.abc import Iterator
from types import MappingProxyType
from typing import TYPE_CHECKING

from selfsup.evaluator import Evaluator, Features, Metric, Score, check_predicted
from selfsup.knob import Knobs, knob

if TYPE_CHECKING:
    from torch import Tensor


class DepthDecoded(Evaluator):
    """Error in meters of the depth that the objective's decoder paints of images, at the best scale and shift.

    correlation: that of painted and true values in the pixels of an image, 0 of what says nothing.
    """

    reads, target = "decoded_depth", "depth"
    metrics = MappingProxyType(
        {
            "rmse": Metric(unit="m", better="min"),
            "abs_rel": Metric(unit="", better="min", headline=False),
            "delta1": Metric(headline=False),
            "correlation": Metric(unit=""),
        }
    )

    class Hyper(Knobs):
        most: float = knob(10.0, "meters that a depth is at most; pixels beyond it are left out", gt=0.001)
        disparity: bool = knob(False, "one over the depth is painted, as input.depth.disparity says")

    def __init__(self, hyper: Hyper) -> None:
        self.hyper = hyper

    def run(self, features: Features, *, seed: int, device: str = "cpu") -> Iterator[tuple[str, Score]]:  # noqa: ARG002
        import torch

        from selfsup.parts.depth_bins import LEAST, DepthBins

        bins = DepthBins(1, self.hyper.most)
        scores: list[Tensor] = []
        in_range = f"has a depth below {self.hyper.most:g} m; set a larger most"
        for pair in zip(*check_predicted(features, bins.known, in_range), strict=True):
            painted, true = (torch.as_tensor(one).double() for one in pair)
            wanted, known = true.reciprocal() if self.hyper.disparity else true, bins.known(true)
            fitted, correlation = aligned(painted[known], wanted[known])
            fitted = fitted.clamp_min(1 / self.hyper.most).reciprocal() if self.hyper.disparity else fitted
            errors = bins.errors(fitted.clamp_min(LEAST), true[known])
            scores.append(torch.cat([errors, correlation[None]]))
        rmse, abs_rel, delta1, correlation = torch.stack(scores).nanmean(0).tolist()
        yield from (("rmse", rmse), ("abs_rel", abs_rel), ("delta1", 100 * delta1), ("correlation", correlation))


def aligned(painted: "Tensor", true: "Tensor") -> tuple["Tensor", "Tensor"]:
    """(P,), (P,) -> (P,), painted values at the scale and shift that fit best; (), their correlation, 0 of flat ones"""
    own, other = painted - painted.mean(), true - true.mean()
    both, square, most = (own * other).mean(), own.square().mean(), other.square().mean()
    flat = (square * most).sqrt().clamp_min(1e-12)
    return true.mean() + (both / square.clamp_min(1e-12)).clamp_min(0) * own, both / flat

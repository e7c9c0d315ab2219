"""Equations over places, against the papers' written out place by place."""

import math

import pytest
import torch
from torch import nn

from selfsup.parts.places import agreement, at_each, centers, close, places, propagated


def cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(a @ b / (a.norm() * b.norm()))


def test_a_head_at_each_place_is_a_convolution_of_one_pixel() -> None:
    maps, linear, conv = torch.randn(2, 5, 3, 4), nn.Linear(5, 7), nn.Conv2d(5, 7, 1)
    with torch.no_grad():
        conv.weight.copy_(linear.weight[..., None, None])
        conv.bias.copy_(linear.bias)
    torch.testing.assert_close(at_each(linear, places(maps)), conv(maps).flatten(2).mT)


@pytest.mark.parametrize("sharpness", [1.0, 2.0])
def test_propagation_is_equations_3_and_4(sharpness: float) -> None:
    x, g = torch.randn(2, 4, 6).double(), torch.randn(2, 4, 6).double()
    expected = torch.zeros_like(g)
    for sample in range(2):
        for i in range(4):
            for j in range(4):
                alike = max(cosine(x[sample, i], x[sample, j]), 0) ** sharpness
                expected[sample, i] += alike * g[sample, j]
    torch.testing.assert_close(propagated(x, g, sharpness=sharpness).double(), expected, rtol=1e-5, atol=1e-5)


def test_places_know_where_they_are_also_in_a_mirror() -> None:
    """A view of the 40 by 20 pixels from (10, 30) on, two rows of four: bins of 10 by 10."""
    box = torch.tensor([[10.0, 30.0, 40.0, 20.0, 0.0], [10.0, 30.0, 40.0, 20.0, 1.0]])
    plain = [(x, y) for y in (35.0, 45.0) for x in (15.0, 25.0, 35.0, 45.0)]
    mirrored = [(x, y) for y in (35.0, 45.0) for x in (45.0, 35.0, 25.0, 15.0)]
    torch.testing.assert_close(centers(box, (2, 4)), torch.tensor([plain, mirrored]))


def test_near_places_are_those_of_the_paper() -> None:
    """Eq. 1 in loops, with views of different sizes and a mirrored one."""
    generator = torch.Generator().manual_seed(0)
    corner, extent = (50 * torch.rand(6, 2, 2, generator=generator) for _ in range(2))
    boxes = torch.cat([corner, 20 + extent, torch.rand(6, 2, 1, generator=generator).round()], dim=2)
    found = close(boxes[:, 0], boxes[:, 1], (3, 3), reach=0.7)
    for sample, views in enumerate(boxes.tolist()):
        diagonal = max(math.hypot(width / 3, height / 3) for _, _, width, height, _ in views)
        points = []
        for left, top, width, height, mirrored in views:
            order = reversed(range(3)) if mirrored else range(3)
            columns = list(order)
            points.append(
                [(left + (c + 0.5) * width / 3, top + (r + 0.5) * height / 3) for r in range(3) for c in columns]
            )
        for i, a in enumerate(points[0]):
            for j, b in enumerate(points[1]):
                assert bool(found[sample, i, j]) == (math.dist(a, b) < 0.7 * diagonal)
    assert 0 < found.float().mean() < 1


def test_agreement_is_the_mean_over_an_images_pairs_then_over_images() -> None:
    y, z = torch.randn(3, 4, 5).double(), torch.randn(3, 4, 5).double()
    near = torch.zeros(3, 4, 4, dtype=torch.bool)
    near[0, 1, 2] = near[0, 3, 3] = near[1, 0, 0] = True  # the third image's views do not overlap
    first = (cosine(y[0, 1], z[0, 2]) + cosine(y[0, 3], z[0, 3])) / 2
    expected = -(first + cosine(y[1, 0], z[1, 0]) + 0) / 3
    assert agreement(y, z, near).item() == pytest.approx(expected, rel=1e-5)

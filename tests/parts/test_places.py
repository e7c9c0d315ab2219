"""Equations over places, against the papers' written out place by place."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from selfsup.parts import norms
from selfsup.parts.places import agreement, at_each, centers, close, places, propagated


def cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(a @ b / (a.norm() * b.norm()))


def test_a_head_at_each_place_is_a_convolution_of_one_pixel() -> None:
    maps, linear, conv = torch.randn(2, 5, 3, 4), nn.Linear(5, 7), nn.Conv2d(5, 7, 1)
    with torch.no_grad():
        conv.weight.copy_(linear.weight[..., None, None])
        conv.bias.copy_(linear.bias)
    torch.testing.assert_close(at_each(linear, places(maps)), conv(maps).flatten(2).mT)


def test_places_are_normalized_with_those_of_their_group_of_samples() -> None:
    head, x = nn.Sequential(nn.BatchNorm1d(3)), torch.randn(8, 5, 3)
    norms.convert(head, groups=2, run=4)
    halves = [F.batch_norm(half.flatten(0, 1), None, None, training=True).view(4, 5, 3) for half in x.split(4)]
    torch.testing.assert_close(at_each(head, x), torch.cat(halves))


@pytest.mark.parametrize("sharpness", [1.0, 2.0])
def test_propagation_is_equations_3_and_4_on_unit_vectors(sharpness: float) -> None:
    x, g = torch.randn(2, 4, 6).double(), torch.randn(2, 4, 6).double()
    expected = torch.zeros_like(g)
    for sample in range(2):
        for i in range(4):
            for j in range(4):
                alike = max(cosine(x[sample, i], x[sample, j]), 0) ** sharpness
                expected[sample, i] += alike * g[sample, j] / g[sample, j].norm()
    torch.testing.assert_close(propagated(x, g, sharpness=sharpness).double(), expected, rtol=1e-5, atol=1e-5)


def test_places_know_where_they_are_also_in_a_mirror() -> None:
    """A view from pixel (30, 10) to (50, 50), two rows of four, in an image of 101 by 201: bins of .1 by .05."""
    box = torch.tensor([[30.0, 10.0, 21.0, 41.0, 0.0, 101.0, 201.0], [30.0, 10.0, 21.0, 41.0, 1.0, 101.0, 201.0]])
    plain = [(y, x) for y in (0.35, 0.45) for x in (0.075, 0.125, 0.175, 0.225)]
    mirrored = [(y, x) for y in (0.35, 0.45) for x in (0.225, 0.175, 0.125, 0.075)]
    middle, diagonal = centers(box, (2, 4))
    torch.testing.assert_close(middle, torch.tensor([plain, mirrored]))
    torch.testing.assert_close(diagonal, torch.full((2,), math.sqrt(0.0125)))


def test_an_image_of_one_column_has_its_places_there() -> None:
    middle, diagonal = centers(torch.tensor([[0.0, 0.0, 5.0, 1.0, 1.0, 5.0, 1.0]]), (2, 1))
    torch.testing.assert_close(middle, torch.tensor([[(0.25, 0.0), (0.75, 0.0)]]))
    torch.testing.assert_close(diagonal, torch.tensor([0.5]))


def test_near_places_are_those_of_the_code() -> None:
    """Eq. 1 in loops, in an image that is stretched to a square, with views of different sizes and mirrored ones."""
    generator = torch.Generator().manual_seed(0)
    corner, extent = (50 * torch.rand(40, 2, 2, generator=generator) for _ in range(2))
    mirror, image = torch.rand(40, 2, 1, generator=generator).round(), torch.tensor([375.0, 125.0]).expand(40, 2, 2)
    boxes = torch.cat([corner, 20 + extent, mirror, image], dim=2)
    found, in_pixels = close(boxes[:, 0], boxes[:, 1], (3, 3), reach=0.7), []
    for sample, views in enumerate(boxes.tolist()):
        spans = [
            (top / 374, left / 124, (top + height - 1) / 374, (left + width - 1) / 124)
            for top, left, height, width, *_ in views
        ]
        diagonal = max(math.hypot((bottom - top) / 3, (right - left) / 3) for top, left, bottom, right in spans)
        largest = max(math.hypot(height / 3, width / 3) for _, _, height, width, *_ in views)
        points = []
        for (top, left, bottom, right), view in zip(spans, views, strict=True):
            if view[4]:
                left, right = right, left
            middles = [(top + (r + 0.5) / 3 * (bottom - top), left + (c + 0.5) / 3 * (right - left))
                       for r in range(3) for c in range(3)]  # fmt: skip
            points.append(middles)
        for i, a in enumerate(points[0]):
            for j, b in enumerate(points[1]):
                assert bool(found[sample, i, j]) == (math.dist(a, b) < 0.7 * diagonal)
                in_pixels.append(math.hypot(374 * (a[0] - b[0]), 124 * (a[1] - b[1])) < 0.7 * largest)
    assert 0 < found.float().mean() < 1
    assert (found.flatten() != torch.tensor(in_pixels)).float().mean() > 0.02  # it is not the distance in pixels


def test_agreement_is_the_mean_over_an_images_pairs_then_over_images() -> None:
    y, z = torch.randn(3, 4, 5).double(), torch.randn(3, 4, 5).double()
    near = torch.zeros(3, 4, 4, dtype=torch.bool)
    near[0, 1, 2] = near[0, 3, 3] = near[1, 0, 0] = True  # the third image's views do not overlap
    first = (cosine(y[0, 1], z[0, 2]) + cosine(y[0, 3], z[0, 3])) / 2
    expected = -(first + cosine(y[1, 0], z[1, 0]) + 0) / 3
    assert agreement(y, z, near).item() == pytest.approx(expected, rel=1e-5)

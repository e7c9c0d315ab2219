"""Groups of points and distances of clouds by SciPy and by loops over points, and encoders of them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation
from torch import nn

from selfsup import encoder
from selfsup.parts.groups import chamfer, farthest, grouped, in_cloud, interpolated, nearest
from selfsup.parts.tokens import Tokens
from selfsup.saved import restore_encoder, save_encoder
from selfsup.sections import Backbone, InputShape

BACKBONE = Backbone(name="vit_tiny_patch16_224", patch_size=8, width=24, depth=2, heads=2, pool="mean")
CLOUDS = np.random.default_rng(0).normal(size=(3, 40, 5)).astype(np.float32)
XYZ = torch.from_numpy(CLOUDS[..., :3])


def far(cloud: np.ndarray, number: int) -> list[int]:
    """Return points by trying all of them at each step."""
    chosen = [0]
    while len(chosen) < number:
        apart = [min(np.linalg.norm(point - cloud[other]) for other in chosen) for point in cloud]
        chosen.append(int(np.argmax(apart)))
    return chosen


def test_centers_are_the_farthest_points() -> None:
    assert farthest(XYZ, 12).tolist() == [far(cloud, 12) for cloud in CLOUDS[..., :3]]


def test_a_group_is_a_center_and_its_nearest_points() -> None:
    centers = XYZ[:, :7]
    for cloud, near in zip(CLOUDS[..., :3], nearest(centers, XYZ, 9).numpy(), strict=True):
        np.testing.assert_array_equal(near, cKDTree(cloud).query(cloud[:7], 9)[1])
    tokens = grouped(torch.from_numpy(CLOUDS).mT, 8)
    assert (tokens.value.shape, tokens.grid) == ((3, 10, 40), (10,)), "each point is in two groups on average"
    for cloud, groups in zip(CLOUDS, tokens.value.view(3, 10, 8, 5).numpy(), strict=True):
        tree = cKDTree(cloud[:, :3])
        for number, group in zip(far(cloud[:, :3], 10), groups, strict=True):
            np.testing.assert_array_equal(group, cloud[tree.query(cloud[number, :3], 8)[1]])
    assert tokens.place.tolist() == list(range(10))


def test_points_that_are_there_twice_are_in_groups_like_others() -> None:
    twice = torch.from_numpy(CLOUDS[:1, :4]).repeat(1, 4, 1).mT
    groups = grouped(twice, 4).value.view(8, 4, 5)
    assert (groups == groups[:, :1]).all()


def test_the_chamfer_distance_by_trees_and_its_gradient_by_differences() -> None:
    a, b = (np.random.default_rng(seed).normal(size=(4, number, 3)) for seed, number in ((1, 6), (2, 9)))

    def by_trees(a: np.ndarray, b: np.ndarray) -> float:
        there, back = (
            np.mean([cKDTree(other).query(own)[0] ** 2 for own, other in zip(x, y, strict=True)])
            for x, y in ((a, b), (b, a))
        )
        return float(there + back)

    moving = torch.from_numpy(a).requires_grad_()
    loss = chamfer(moving, torch.from_numpy(b))
    assert loss.item() == pytest.approx(by_trees(a, b), rel=1e-12)
    loss.backward()
    assert moving.grad is not None
    for place in np.ndindex(2, 3, 3):
        step = np.zeros_like(a)
        step[place] = 1e-6
        slope = (by_trees(a + step, b) - by_trees(a - step, b)) / 2e-6
        assert moving.grad[place].item() == pytest.approx(slope, abs=1e-7)


def test_points_of_a_view_are_found_in_their_cloud() -> None:
    """By rotations, factors and shifts of SciPy and NumPy, in a box as views of clouds have it."""
    draw, boxes, views = np.random.default_rng(1), [], []
    for cloud in CLOUDS[..., :3].astype(np.float64):
        matrix, shift = draw.uniform(0.5, 2, (3, 1)) * Rotation.random(rng=draw).as_matrix(), draw.normal(size=3)
        views.append(cloud @ matrix.T + shift)
        boxes.append([3, 20, 0, *np.column_stack([matrix, shift]).ravel(), 40])
    places = in_cloud(torch.tensor(np.stack(views)).float(), torch.tensor(boxes).float())
    torch.testing.assert_close(places, XYZ, rtol=0, atol=1e-5)


def test_features_between_centers_are_means_by_one_over_the_squared_distance() -> None:
    features, places = np.random.default_rng(2).normal(size=(3, 12, 7)), CLOUDS[:, 12:20, :3]
    made = interpolated(torch.from_numpy(features), XYZ[:, :12], torch.from_numpy(places))
    for own, cloud, at, mean in zip(features, CLOUDS[:, :12, :3], places, made.numpy(), strict=True):
        apart, near = cKDTree(cloud).query(at, 3)
        for place in range(8):
            expected = np.average(own[near[place]], axis=0, weights=apart[place] ** -2)
            np.testing.assert_allclose(mean[place], expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(
        interpolated(torch.from_numpy(features).float(), XYZ[:, :12], XYZ[:, :12]), torch.from_numpy(features).float()
    )
    two = interpolated(torch.ones(3, 2, 1), XYZ[:, :2], XYZ)
    torch.testing.assert_close(two, torch.ones(3, 40, 1))


@pytest.fixture(scope="module")
def vit() -> encoder.TokenEncoder:
    torch.manual_seed(0)
    built = encoder.build(BACKBONE, shape=InputShape(5, (80,), in_groups=True)).eval()
    assert isinstance(built, encoder.TokenEncoder)
    return built


def test_an_encoder_of_groups_is_a_small_pointnet_and_a_transformer(vit: encoder.TokenEncoder) -> None:
    """Written out for one cloud, group by group and point by point."""
    tokens, trunk = grouped(torch.from_numpy(CLOUDS[:1]).mT, 8), vit.trunk
    layers, embedded = trunk.patch_embed.groups, []
    for group in tokens.value.view(10, 8, 5):
        center = group[0, :3]
        points = [layers.local(torch.cat([point[:3] - center, point[3:]])) for point in group]
        largest = torch.stack(points).max(0).values
        points = [trunk.patch_embed.proj(layers.joint(torch.cat([largest, point]))) for point in points]
        place = layers.positions[2](nn.functional.gelu(layers.positions[0](center)))
        embedded.append(torch.stack(points).max(0).values + place)
    hidden = torch.cat([trunk.cls_token[0] + trunk.pos_embed[0], torch.stack(embedded)])[None]
    for block in trunk.blocks:
        hidden = block(hidden)
    expected = trunk.norm(hidden)
    torch.testing.assert_close(vit(tokens), expected)
    torch.testing.assert_close(vit.pooled(tokens), expected[:, 1:].mean(1))
    assert vit.spatial(tokens).shape == (1, 24, 10)


def test_what_is_left_out_costs_nothing_and_order_says_nothing(vit: encoder.TokenEncoder) -> None:
    tokens = grouped(torch.from_numpy(CLOUDS).mT, 8)
    keep = torch.tensor([[1, 4, 6]]).expand(3, -1)
    part = Tokens(tokens.value[:, [1, 4, 6]], tokens.coord[:, [1, 4, 6]], tokens.grid)
    torch.testing.assert_close(vit(tokens, keep), vit(part))
    mixed = Tokens(tokens.value.flip(1), tokens.coord, tokens.grid)
    torch.testing.assert_close(vit.pooled(mixed), vit.pooled(tokens))
    other = grouped(torch.from_numpy(CLOUDS[:, :20]).mT, 8)
    assert other.grid == (5,)
    assert vit.pooled(other).shape == (3, 24), "of clouds of another size than it is built for"
    assert all(parameter.requires_grad for parameter in vit.parameters())


def test_an_encoder_of_groups_is_restored_from_its_file(vit: encoder.TokenEncoder, tmp_path: Path) -> None:
    shape = InputShape(5, (80,), in_groups=True)
    save_encoder(vit, BACKBONE, tmp_path / "encoder.safetensors", shape)
    restored = restore_encoder(tmp_path / "encoder.safetensors").eval()
    tokens = grouped(torch.from_numpy(CLOUDS).mT, 8)
    assert torch.equal(restored.pooled(tokens), vit.pooled(tokens))
    assert len({weight.data_ptr() for weight in vit.state_dict().values()}) == len(vit.state_dict())

"""Groups of the points of clouds, which a token encoder sees in place of patches: overlapping ones, about far centers.

As Point-BERT (arXiv 2111.14819) and Point-MAE (arXiv 2203.06604): centers by farthest point sampling, and about each
its nearest neighbors. Deviation from the code of both: points within 0.03 of the origin are centers like all others,
where theirs never are.

B: clouds, n: points, C: values of a point, coordinates first, G: groups, k: points of a group, M: places.
"""

import torch
from torch import Tensor, nn

from selfsup.parts.tokens import Tokens, places

AXES = 3
HIDDEN = 128  # channels between centers and positions
NEIGHBORS = 3  # centers that features between them are of
LEAST_SQUARE = 1e-10  # of a distance: a center has its own feature
POSE = slice(-13, -1)  # of a view's box: a matrix and a shift, row by row, before the number of the cloud's points
OVERLAP = 2  # groups that a point is in on average, as in all settings of Point-MAE: 64 groups of 32 of 1024 points


def grouped(clouds: Tensor, size: int) -> Tokens:
    """(B, C, n) -> Tokens, value (B, G, k * C): the points of each group, the nearest to its center first, itself.

    size: k. There are OVERLAP * n / k groups, in the order in which their centers were chosen.
    """
    points = clouds.mT
    xyz = points[..., :AXES].float()
    centers = farthest(xyz, OVERLAP * points.shape[1] // size)
    near = nearest(xyz.take_along_dim(centers[..., None], dim=1), xyz, size)
    value = points.take_along_dim(near.flatten(1)[..., None], dim=1).reshape(*near.shape[:2], -1)
    grid = (near.shape[1],)
    return Tokens(value, places(grid, clouds.device).expand(len(clouds), -1, -1), grid)


def farthest(xyz: Tensor, number: int) -> Tensor:
    """(B, n, 3) -> (B, number) int64: the first point, then the one farthest from all before it, one after the other.

    Farthest point sampling, as PointNet++ (arXiv 1706.02413) has it.
    """
    chosen = [torch.zeros(len(xyz), dtype=torch.int64, device=xyz.device)]
    distance = torch.full(xyz.shape[:2], torch.inf, device=xyz.device)
    for _ in range(number - 1):
        last = xyz.take_along_dim(chosen[-1][:, None, None], dim=1)
        distance = torch.minimum(distance, (xyz - last).square().sum(2))
        chosen.append(distance.argmax(1))
    return torch.stack(chosen, dim=1)


def nearest(centers: Tensor, xyz: Tensor, number: int) -> Tensor:
    """(B, G, 3), (B, n, 3) -> (B, G, number) int64: the points nearest to each center, the nearest first"""
    return distances(centers, xyz).topk(number, largest=False).indices


def distances(a: Tensor, b: Tensor) -> Tensor:
    """(..., N, 3), (..., M, 3) -> (..., N, M), exact also of what is near"""
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")


def members(value: Tensor, size: int) -> Tensor:
    """(B, G, k * C) -> (B, G, k, C): the points of each group. size: k"""
    return value.reshape(*value.shape[:2], size, -1)


def about(value: Tensor, size: int) -> Tensor:
    """(B, G, k * C) -> (B, G, k, C): the same, with coordinates from the center of their group on"""
    points = members(value, size)
    return torch.cat([points[..., :AXES] - points[..., :1, :AXES], points[..., AXES:]], dim=-1)


def centers_of(value: Tensor) -> Tensor:
    """(B, G, k * C) -> (B, G, 3): the first point of each group"""
    return value[..., :AXES]


class CenterPositions(nn.Sequential):
    """Positions of groups by their centers, which two layers learn: (B, G, 3) -> (B, G, D)."""

    def __init__(self, width: int) -> None:
        super().__init__(nn.Linear(AXES, HIDDEN), nn.GELU(), nn.Linear(HIDDEN, width))


class GroupLayers(nn.Module):
    """A small PointNet of the points of each group, up to its last layer, and the positions of groups.

    Point-MAE, section 3.1, whose channels these are in a trunk of 384. Deviation from its code: layer norms in place of
    batch norms, so that the features of a cloud do not depend on others. size: k. out: channels after it.
    """

    def __init__(self, channels: int, width: int, size: int) -> None:
        super().__init__()
        part = width // 3
        self.size, self.values, self.out = size, size * channels, 4 * part
        self.local = nn.Sequential(nn.Linear(channels, part), nn.LayerNorm(part), nn.ReLU(), nn.Linear(part, 2 * part))
        self.joint = nn.Sequential(nn.Linear(4 * part, self.out), nn.LayerNorm(self.out), nn.ReLU())
        self.positions = CenterPositions(width)

    def forward(self, value: Tensor) -> Tensor:
        """(B, G, k * C) -> (B, G, k, out): each point in view of its group"""
        own = self.local(about(value, self.size))
        joint: Tensor = self.joint(torch.cat([own.amax(2, keepdim=True).expand_as(own), own], dim=-1))
        return joint

    def position(self, value: Tensor) -> Tensor:
        """(B, G, k * C) -> (B, G, D)"""
        position: Tensor = self.positions(centers_of(value))
        return position


def chamfer(a: Tensor, b: Tensor) -> Tensor:
    """(M, k, 3), (M, l, 3) -> (): mean square of the distance of each point to the other cloud's nearest, both ways.

    Chamfer distance of squares, as Point-MAE's code has it: the mean over a's points plus that over b's.
    """
    with torch.no_grad():
        apart = distances(a, b)
        of_a, of_b = apart.argmin(2), apart.argmin(1)
    there, back = (
        (own - other.take_along_dim(near[..., None], dim=1)).square().sum(2).mean()
        for own, other, near in ((a, b, of_a), (b, a, of_b))
    )
    return there + back


def in_cloud(xyz: Tensor, box: Tensor) -> Tensor:
    """(B, M, 3), View.box (B, 16) -> (B, M, 3): where in its cloud, from the middle on, a view's point lies"""
    pose = box[:, POSE].to(xyz).view(-1, AXES, AXES + 1)
    place: Tensor = torch.linalg.solve_ex(pose[..., :AXES], (xyz - pose[:, None, :, AXES]).mT).result.mT
    return place


def interpolated(features: Tensor, centers: Tensor, xyz: Tensor) -> Tensor:
    """(B, G, D), (B, G, 3), (B, M, 3) -> (B, M, D): features of any points, from those of the nearest three centers.

    PointNet++ (arXiv 1706.02413), eq. 2: a mean, weighted by one over the squared distance.
    """
    near = nearest(xyz, centers, min(NEIGHBORS, centers.shape[1]))

    def own(values: Tensor) -> Tensor:
        return values.take_along_dim(near.flatten(1)[..., None], dim=1).view(*near.shape, -1)

    weight = 1 / (own(centers) - xyz[:, :, None]).square().sum(3, keepdim=True).clamp_min(LEAST_SQUARE)
    mean: Tensor = (own(features) * weight).sum(2) / weight.sum(2)
    return mean

"""PointContrast and DepthContrast as their authors train them, at their recipes' settings: cloud by cloud."""

from itertools import product
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from torch import Tensor, nn

from selfsup.batch import Batch, View
from selfsup.method import Method

from .authors import copied, cosine, learn, named, sgd, trained
from .ours import Trained
from .recipes import of_recipe

PLACES = {"encoder": "encoders.points", "head": "head"}
QUERIES, KEYS = {"encoders": "encoders", "heads": "heads"}, {"encoders": "keys", "heads": "key_heads"}


def shown(view: View, number: int) -> NDArray[np.float64]:
    """-> (G, k, 3): the points of groups where they lie in the cloud, by the inverse of the view's pose"""
    pose = view.box[number, 3:15].double().numpy().reshape(3, 4)
    points = view.value.value[number].detach().double().numpy().reshape(len(view.value.value[number]), -1, 3)
    return (points - pose[:, 3]) @ np.linalg.inv(pose[:, :3]).T


def between(features: Tensor, centers: NDArray[np.float64], places: NDArray[np.float64]) -> Tensor:
    """(G, D), (G, 3), (P, 3) -> (P, D): the mean of three centers' features, by one over the squared distance"""
    apart, near = cKDTree(centers).query(places, 3)
    weight = 1 / np.maximum(apart**2, 1e-10)
    shares = torch.from_numpy(weight / weight.sum(1, keepdims=True)).to(features)
    return (features[torch.from_numpy(near)] * shares[..., None]).sum(1)


class Matches(NamedTuple):
    """All of a batch. cloud: (M,) the number of each. place: (M, 3). a, b: (M, dim) unit features of both views."""

    cloud: Tensor
    place: Tensor
    a: Tensor
    b: Tensor


def matches(network: nn.ModuleDict, batch: Batch, reach: float = 0.1) -> Matches:
    maps = [network["encoder"].spatial(view.value).mT for view in batch.views]
    made = list[Matches]()
    for number in range(len(batch.sample)):
        one, two = (shown(view, number) for view in batch.views)
        places = one[cKDTree(two.reshape(-1, 3)).query(one[:, 0])[0] < reach, 0]
        features = [between(own[number], seen[:, 0], places) for own, seen in zip(maps, (one, two), strict=True)]
        unit = [F.normalize(network["head"](own), dim=1) for own in features]
        made.append(Matches(torch.full((len(places),), number), torch.from_numpy(places), *unit))
    return Matches(*(torch.cat(parts) for parts in zip(*made, strict=True)))


def info_nce(network: nn.ModuleDict, batch: Batch) -> Tensor:
    """Equation 2: each match's partner among those of all."""
    _, _, a, b = matches(network, batch)
    return -(a @ b.T / 0.4).log_softmax(1).diagonal().mean()


def pointcontrast(method: Method, batches: list[Batch]) -> Trained:
    """torch's SGD over all parameters, with a momentum of 0.8."""
    student = copied(method, PLACES)

    def loss(student: nn.ModuleDict, _: nn.ModuleDict, batch: Batch, step: int) -> Tensor:  # noqa: ARG001
        return info_nce(student, batch)

    move = sgd(student, lambda step, _: cosine(step, 0.05, 4.48e-3), decay=1e-4, momentum=0.8)
    losses, _ = learn(student, loss, batches, move)
    return trained(losses, named(student, PLACES))


def depthcontrast(method: Method, batches: list[Batch]) -> Trained:
    """Four cross-entropies, each with a weight of a half; both queues take keys once all four are computed."""
    student, teacher = copied(method, QUERIES), copied(method, KEYS)
    queues = {name: method.queues[name].rows.clone() for name in ("points", "voxels")}

    def vector(network: nn.ModuleDict, view: View) -> Tensor:
        pooled = network["encoders"][view.modality].pooled(view.value)
        return F.normalize(network["heads"][view.modality](pooled), dim=1)

    def loss(student: nn.ModuleDict, teacher: nn.ModuleDict, batch: Batch, step: int) -> Tensor:
        point, other_point, voxel, other_voxel = batch.views
        queries = {"points": vector(student, point), "voxels": vector(student, voxel)}
        with torch.no_grad():
            keys = {"points": vector(teacher, other_point), "voxels": vector(teacher, other_voxel)}
        total = torch.zeros(())
        for own, other in product(queries, keys):
            for query, key in zip(queries[own], keys[other], strict=True):
                scores = torch.cat([(query @ key)[None], queues[other].clone() @ query]) / 0.1
                total = total - 0.5 * scores.log_softmax(0)[0] / len(batch.sample)
        for name, rows in queues.items():
            rows[8 * step % 24 : 8 * step % 24 + 8] = keys[name]
        return total

    move = sgd(student, lambda step, _: cosine(step, 0.12, 1.2e-4), decay=1e-4)
    losses, _ = learn(student, loss, batches, move, teacher=teacher, momentum=lambda _: 0.999)
    rows = {f"queues.{name}.rows": own for name, own in queues.items()}
    return trained(losses, named(student, QUERIES) | named(teacher, KEYS) | rows)


LOOPS = {
    "pointcontrast": of_recipe("scannet/pointcontrast", pointcontrast, "vit", dim=8),
    "depthcontrast": of_recipe("scannet/depthcontrast", depthcontrast, "vit", queue=24, dim=16),
}

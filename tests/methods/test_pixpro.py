"""PixPro's forward against the paper, image by image and place by place, and its target moved by hand."""

import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from selfsup.method import load
from selfsup.parts.schedules import cosine
from selfsup.spec import read

RECIPE = Path(__file__).parents[2] / "pipelines" / "in1k" / "pixpro.yaml"


def smoothed(x: torch.Tensor, method: torch.nn.Module) -> torch.Tensor:
    """(P, D) -> (P, D): eq. 3 and 4 for one image, on unit vectors"""
    alike = torch.stack([F.cosine_similarity(place[None], x, dim=1) for place in x]).clamp(min=0) ** 2
    values = [method.transform(place[None])[0] for place in x]
    return torch.stack([sum(alike[i, j] * values[j] / values[j].norm() for j in range(len(x))) for i in range(len(x))])


def distance(batch, sample: int, i: int, j: int) -> float:
    """Between place i of the first view and j of the second, in diagonals of a place, as shares of each axis.

    Maps are 2 by 2.
    """
    points, diagonals = [], []
    for view, number in zip(batch.views, (i, j), strict=True):
        top, left, height, width, mirrored, rows, columns = view.box[sample].tolist()
        row, column = divmod(number, 2)
        column = 1 - column if mirrored else column
        down, across = (height - 1) / (rows - 1) / 2, (width - 1) / (columns - 1) / 2
        points.append((top / (rows - 1) + down * (row + 0.5), left / (columns - 1) + across * (column + 0.5)))
        diagonals.append(math.hypot(down, across))
    return math.dist(*points) / max(diagonals)


def test_the_loss_is_twice_equation_5(setting, moved) -> None:
    method, batch = setting("pixpro")
    moved(method.target, method.target_projector)
    loss = method(batch).loss
    x, z = [], []
    for view in batch.views:
        maps, target = (trunk.spatial(view.value).flatten(2).mT for trunk in (method.backbone, method.target))
        x.append(method.projector(maps.reshape(-1, maps.shape[2])).reshape(8, 4, -1))
        z.append(method.target_projector(target.reshape(-1, maps.shape[2])).reshape(8, 4, -1))
    total, pairs = 0.0, 0
    for sample in range(8):
        y = [smoothed(each[sample], method) for each in x]
        near = [(i, j) for i in range(4) for j in range(4) if distance(batch, sample, i, j) < 0.7]
        for i, j in near:
            forth = F.cosine_similarity(y[0][i], z[1][sample, j], dim=0)
            back = F.cosine_similarity(y[1][j], z[0][sample, i], dim=0)
            total = total - 2 * (forth + back) / len(near) / 8
        pairs += len(near)
    assert 8 < pairs < 8 * 16
    assert loss.item() == pytest.approx(total.item(), rel=1e-4, abs=1e-6)


def test_the_target_follows_and_is_not_learned_from(setting) -> None:
    method, batch = setting("pixpro", momentum=0.9)
    optimizer = torch.optim.SGD(method.parameters(), lr=0.1)
    trunk, head = method.target.trunk.conv1.weight.clone(), method.target_projector[0].weight.clone()
    for step in range(3):
        optimizer.zero_grad()
        method(batch).loss.backward()
        optimizer.step()
        method.after_step(step / 3, {})
        tau = cosine(step / 3, 0.9, 1.0)
        trunk = tau * trunk + (1 - tau) * method.backbone.trunk.conv1.weight.detach()
        head = tau * head + (1 - tau) * method.projector[0].weight.detach()
    torch.testing.assert_close(method.target.trunk.conv1.weight, trunk)
    torch.testing.assert_close(method.target_projector[0].weight, head)
    assert all(weight.grad is None for weight in method.target.parameters())


def test_views_that_share_nothing_count_nothing(setting) -> None:
    method, batch = setting("pixpro")
    assert method(batch).log["overlapping"].item() == 1
    batch.views[1].box[:, 0] += 1000
    out = method(batch)
    assert out.loss.item() == 0
    assert out.log["overlapping"].item() == 0


def test_the_projector_is_the_papers_and_in_the_recipe_the_codes() -> None:
    assert (load("pixpro").Hyper().hidden, read(RECIPE).hyper.hidden) == (2048, 4096)

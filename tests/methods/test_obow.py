"""OBoW against its equations in loops, on vocabularies, spreads and teachers kept by hand."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from selfsup.batch import View
from selfsup.method import Batch, Method, load
from selfsup.parts.clustering import bag_error
from selfsup.parts.schedules import cosine
from selfsup.views import Center

Array = NDArray[np.float64]
KNOBS = {"border": 1, "sharpness": 3.0, "kappa": 2.0, "local_crops": 2}


def places(method: Method, batch: Batch) -> list[Array]:
    """(N, h, w, D) of conv4 and conv5, inside the border."""
    with torch.no_grad():
        maps = method.teacher.stages(batch.views[0].value)[-2:]
    return [stage.double().numpy().transpose(0, 2, 3, 1)[:, 1:-1, 1:-1] for stage in maps]


def bags(features: Array, words: Array, spread: float) -> tuple[Array, Array]:
    """Place by place: bags of words; the mean distance from the nearest word of each image."""
    found, nearest = [], []
    for image in features.reshape(len(features), -1, features.shape[-1]):
        distance = np.array([[((place - word) ** 2).sum() for word in words] for place in image])
        nearest.append(distance.min(1).mean())
        found.append(distance)
    delta = (0.99 * spread + 0.01 * np.mean(nearest)) / 3.0
    out = []
    for distance in found:
        code = np.exp(-(distance - distance.min(1, keepdims=True)) / delta)
        most = (code / code.sum(1, keepdims=True)).max(0)
        out.append(most / most.sum())
    return np.array(out), np.array(nearest)


def drawn(features: Array, draws: Array) -> Array:
    """Return the mean of three by three places of each image (two by two where there are no more), which draws say."""
    side = min(3, features.shape[1])
    across = features.shape[1] - side + 1
    rows = []
    for image, draw in zip(features, draws, strict=True):
        row, column = divmod(int(draw * across**2), across)
        rows.append(image[row : row + side, column : column + side].mean((0, 1)))
    return np.array(rows)


def error(method: Method, level: int, views: tuple[View, ...], bag: Array) -> Tensor:
    """The mean cross-entropy of the views of one size."""
    words = method.vocabularies[level].rows
    weights = F.normalize(method.generators[level](F.normalize(words, dim=1)), dim=1)
    features = method.backbone.pooled(torch.cat([view.value for view in views])).chunk(len(views))
    logs = [torch.log_softmax(2.0 * each @ weights.T, dim=1) for each in features]
    return torch.stack([-(torch.tensor(bag).float() * log).sum(1).mean() for log in logs]).mean()


def test_every_step_is_worked_out_by_hand(setting) -> None:
    method, _ = setting("obow", **KNOBS)
    optimizer = torch.optim.SGD(method.parameters(), lr=0.01)
    words = [queue.rows.double().numpy().copy() for queue in method.vocabularies]
    spread, weight = [0.5, 0.5], method.teacher.trunk.conv1.weight.clone()
    for step in range(3):  # 24 words go once round vocabularies of 12, and on
        _, batch = setting("obow", seed=step, **KNOBS)
        whole = torch.randn(8, 3, 32, 32)  # so that a border can be left out of conv5's 4 by 4 places
        batch = batch._replace(views=(batch.views[0]._replace(value=whole), *batch.views[1:]))
        expected = []
        for level, features in enumerate(places(method, batch)):
            bag, nearest = bags(features, words[level], spread[level])
            expected += [error(method, level, views, bag) for views in (batch.views[1:3], batch.views[3:])]
            spread[level] = 0.99 * spread[level] + 0.01 * nearest.mean()
            new = drawn(features, batch.draws[:, level].double().numpy())
            words[level][np.arange(8 * step, 8 * step + 8) % 12] = new
        out = method(batch)
        torch.testing.assert_close(out.loss, torch.stack(expected).sum() / 2, rtol=1e-4, atol=1e-5)
        optimizer.zero_grad()
        out.loss.backward()
        optimizer.step()
        method.after_step(step / 10, {name: value.detach() for name, value in out.aux.items()})
        alpha = cosine(step / 10, 0.99, 1.0)
        weight = alpha * weight + (1 - alpha) * method.backbone.trunk.conv1.weight.detach()
        for level in range(2):
            torch.testing.assert_close(
                method.vocabularies[level].rows, torch.tensor(words[level]).float(), rtol=1e-4, atol=1e-5
            )
        torch.testing.assert_close(method.spread, torch.tensor(spread).float(), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(method.teacher.trunk.conv1.weight, weight)


def test_a_place_is_drawn_among_all(setting) -> None:
    method, batch = setting("obow", levels=1)
    features = method.teacher.stages(batch.views[0].value)[-1]
    assert features.shape[2:] == (2, 2)
    torch.testing.assert_close(method(batch).aux["word0"], features.mean((2, 3)))  # two by two: there is but one


def test_the_prediction_of_a_perfect_student_costs_the_entropy_of_the_bag() -> None:
    bag = torch.tensor([[0.5, 0.25, 0.25], [1 / 3, 1 / 3, 1 / 3]])
    features = bag.log()[None] / 2.0
    expected = (0.5 * math.log(2) + 0.5 * math.log(4) + math.log(3)) / 2
    torch.testing.assert_close(bag_error(features, torch.eye(3), bag, kappa=2.0), torch.tensor(expected))


def test_the_border_must_leave_something(setting) -> None:
    method, batch = setting("obow", border=1)
    with pytest.raises(AssertionError, match="a border of 1 leaves nothing of feature maps of 2 by 2 places"):
        method(batch)


def test_the_views_are_the_papers() -> None:
    kind = load("obow")
    whole, *crops = kind.views(kind.Hyper()).specs
    assert whole == Center(share=0.875, flip=0.5, rounded=True, resample="bilinear")
    large, small = (160, (0.08, 0.6), 0.5), (96, (0.084, 0.14), 0.0)
    assert [(crop.size, crop.scale, crop.blur) for crop in crops] == [large] * 2 + [small] * 5
    assert all((crop.jitter, crop.brightness, crop.hue, crop.gray) == (0.8, 0.4, 0.1, 0.2) for crop in crops)


def test_words_begin_as_normal_numbers_that_are_not_negative(setting) -> None:
    method, _ = setting("obow", words=600)
    for queue in method.vocabularies:
        assert queue.rows.min() == 0
        assert (queue.rows == 0).float().mean() == pytest.approx(0.5, abs=0.01)
        assert queue.rows.square().mean() == pytest.approx(0.5, abs=0.01)  # half of a normal distribution's variance

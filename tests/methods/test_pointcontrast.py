"""PointContrast: its matches by what points know of their places, and both losses match by match."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from arrays import npy
from loops.authors import copied, same_gradients
from loops.clouds import PLACES, info_nce, matches
from precision import double_precision
from scipy.spatial import cKDTree
from torch import Tensor, nn

from selfsup.batch import Batch, View
from selfsup.method import TrainInfo, load
from selfsup.modality import load as load_modality
from selfsup.parts.groups import grouped
from selfsup.parts.tokens import Tokens
from selfsup.sections import Backbone, Setup, Train
from selfsup.spec import read

KIND: Any = load("pointcontrast")
CLOUDS, POINTS, SIZE = 4, 400, 8


def hardest(network: nn.ModuleDict, batch: Batch, reach: float = 0.1) -> Tensor:
    """Equation 1, by the code: of each match the nearest other feature that is not of the same place, both ways."""
    known = matches(network, batch, reach)
    terms, lacking = ((known.a - known.b).square().sum(1) - 0.1).relu(), list[Tensor]()
    for own, other in ((known.a, known.b), (known.b, known.a)):
        for cloud, place, vector in zip(known.cloud, known.place, own, strict=True):
            others = other[(known.cloud != cloud) | ((known.place - place).norm(dim=1) >= reach)]
            distance = ((vector - others).square().sum(1) + 1e-7).sqrt().min()
            lacking.append((1.4 - distance).relu().square())
    return terms.mean() + torch.stack(lacking).mean()


@pytest.mark.parametrize(("loss", "derived"), [("nce", info_nce), ("hardest", hardest)])
def test_value_and_gradient_are_those_of_the_equations(loss: str, derived: Any, setting: Any) -> None:
    method, batch = setting("pointcontrast", double=True, loss=loss)
    network = copied(method, PLACES)
    with double_precision():
        out, expected = method(batch), derived(network, batch)
        out.loss.backward()
        expected.backward()
    torch.testing.assert_close(out.loss, expected)
    same_gradients(method, network, PLACES)
    assert 0.2 < out.log["matched"] < 1


class Coordinates(nn.Module):
    """An encoder that says of each group what the center knows of its own place."""

    dim, groups = 3, SimpleNamespace(size=SIZE)

    def spatial(self, tokens: Tokens) -> Tensor:
        return known(tokens)[:, :, 0].mT


def known(tokens: Tokens) -> Tensor:
    """-> (B, G, k, 3): where points lie, as they know it: no pose changes the last three of their values."""
    return tokens.value.unflatten(2, (SIZE, 6))[..., 3:]


def turned() -> Batch:
    """Return two views of hulls: each of a part, turned, stretched and mirrored by itself, as the stream has them."""
    kind: Any = load_modality("points")
    draw, files, views = np.random.default_rng(0), list[bytes](), list[View]()
    for _ in range(CLOUDS):
        xyz = draw.normal(size=(POINTS, 3))
        xyz *= np.array([1.0, 0.8, 0.6]) / np.linalg.norm(xyz, axis=1, keepdims=True)
        xyz -= xyz.mean(0)
        xyz /= np.linalg.norm(xyz, axis=1).max()
        files.append(npy(np.concatenate([xyz, xyz], axis=1)))
    knobs = kind.Input(points=POINTS, crop_min=0.4, rotation="any", scale=1.3, flip=True)
    extents = np.full((CLOUDS, 1), POINTS)
    for spec in kind.views(KIND.views(KIND.Hyper()), (), knobs).specs:
        boxes = kind.place(spec, extents, draw.random((CLOUDS, kind.place_draws)))
        raw = [kind.load(data, box[None], [spec], kind.Reading())[0] for data, box in zip(files, boxes, strict=True)]
        tokens = grouped(torch.from_numpy(np.stack(raw)).mT, SIZE)
        views.append(View("points", tokens, None, torch.from_numpy(np.concatenate([boxes, extents], axis=1)).float()))
    return Batch(tuple(views), torch.arange(CLOUDS), torch.zeros(CLOUDS), torch.zeros(CLOUDS, 0))


def test_matches_are_of_one_place_however_views_are_cut_turned_and_stretched() -> None:
    method, batch = KIND(KIND.Hyper(dim=3), {"points": Coordinates()}, TrainInfo(CLOUDS, 1, 1, 1)), turned()
    method.head = nn.Identity()
    one, two = (known(view.value) for view in batch.views)
    points = [method._points(view) for view in batch.views]
    torch.testing.assert_close(points, [one, two], rtol=0, atol=1e-5)
    near = np.stack([cKDTree(b.reshape(-1, 3)).query(a[:, 0])[0] < 0.1 for a, b in zip(one, two, strict=True)])
    assert method(batch).log["matched"].item() == pytest.approx(near.mean())
    assert 0.3 < near.mean() < 0.95, "some lie in one part alone"
    place = one[:, :, 0]
    first, second = (method._features(view, own[:, :, 0], place) for view, own in zip(batch.views, points, strict=True))
    torch.testing.assert_close(first, place.flatten(0, 1), rtol=0, atol=1e-4)
    error = (second - first)[torch.from_numpy(near).flatten()].norm(dim=1)
    assert error.mean() < 0.15, "what is between three centers says about where it is"


@pytest.mark.parametrize("loss", ["nce", "hardest"])
def test_views_without_a_match_count_nothing(loss: str, setting: Any) -> None:
    method, batch = setting("pointcontrast", loss=loss)
    batch.views[1].box[:, 6] += 1000  # its shift along the first axis
    out = method(batch)
    out.loss.backward()
    assert (out.loss.item(), out.log["matched"].item()) == (0, 0)
    assert not any(weight.grad.any() for weight in method.parameters())


@pytest.mark.parametrize(
    ("hyper", "path"), [({"loss": "hardest", "temperature": 0.1}, "temperature"), ({"push": 1.0}, "push")]
)
def test_a_knob_of_the_other_loss_is_refused(hyper: dict[str, Any], path: str) -> None:
    [error] = KIND.check(KIND.Hyper(**hyper), Setup(Backbone(), Train.model_construct(), 1, (2048,)))
    assert error.paths == (f"hyper.{path}", "hyper.loss")


def test_the_recipe_is_that_of_the_authors() -> None:
    """scripts/ddp_launch.sh of PointContrast's code, and config/defaults.yaml, whose rate falls 240 times."""
    spec = read("scannet/pointcontrast")
    optim, hyper = spec.optim, spec.hyper
    assert (optim.name, optim.lr, optim.momentum, optim.weight_decay, optim.decay_all) == ("sgd", 0.05, 0.8, 1e-4, True)
    assert optim.min_lr == pytest.approx(0.05 * 0.99 ** (60000 / 250), rel=1e-3)
    assert (spec.train.duration.steps, spec.train.batch) == (60000, 32)
    assert (hyper.loss, hyper.temperature, hyper.pull, hyper.push, hyper.dim) == ("nce", 0.4, 0.1, 1.4, 32)

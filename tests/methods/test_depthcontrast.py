"""DepthContrast: MoCo's loss by lightly within and between formats, its queues and its key encoders."""

from itertools import product
from typing import Any

import torch
from lightly.loss import NTXentLoss

from selfsup.method import load
from selfsup.sections import Backbone, Setup, Train
from selfsup.spec import read

KIND: Any = load("depthcontrast")
FORMATS = "points", "voxels"


def test_value_and_gradient_of_every_step_are_lightlys_on_queues_of_its_own(setting: Any, moved: Any) -> None:
    method, batch = setting("depthcontrast", within=0.7, across=0.2)
    moved(method.keys, method.key_heads)
    theirs = {pair: NTXentLoss(temperature=0.1, memory_bank_size=(24, 16)) for pair in product(FORMATS, FORMATS)}
    for (_, key), loss in theirs.items():
        loss.memory_bank.bank = method.queues[key].rows.clone()
        loss.memory_bank.bank_ptr = torch.zeros(1, dtype=torch.int64)
    point, other_point, voxel, other_voxel = (view.value for view in batch.views)
    learned = (*method.encoders.parameters(), *method.heads.parameters())
    weights = [weight for weight in learned if weight.requires_grad]
    for _ in range(4):  # 32 keys, round the queues and on
        views = {"points": (point, other_point), "voxels": (voxel, other_voxel)}
        queries = {name: method.heads[name](method.encoders[name].pooled(view)) for name, (view, _) in views.items()}
        with torch.no_grad():
            keys = {name: method.key_heads[name](method.keys[name].pooled(other)) for name, (_, other) in views.items()}
        expected = sum(
            (0.7 if query == key else 0.2) * loss(queries[query], keys[key]) for (query, key), loss in theirs.items()
        )
        out = method(batch)
        torch.testing.assert_close(out.loss, expected)
        pairs = zip(torch.autograd.grad(out.loss, weights), torch.autograd.grad(expected, weights), strict=True)
        for ours, gradient in pairs:
            torch.testing.assert_close(ours, gradient, rtol=1e-3, atol=1e-6)
        method.after_step(0.0, out.aux)


def test_keys_follow_and_are_not_learned_from(setting: Any) -> None:
    method, batch = setting("depthcontrast", momentum=0.9)
    optimizer = torch.optim.SGD(method.parameters(), lr=0.1)
    names = [name for name, _ in method.encoders.named_parameters()]
    follower = {name: method.encoders.get_parameter(name).detach().clone() for name in names}
    for step in range(3):
        optimizer.zero_grad()
        out = method(batch)
        out.loss.backward()
        optimizer.step()
        method.after_step(step / 3, out.aux)
        follower = {name: 0.9 * old + 0.1 * method.encoders.get_parameter(name) for name, old in follower.items()}
    torch.testing.assert_close(dict(method.keys.named_parameters()), follower)
    assert all(weight.grad is None for part in (method.keys, method.key_heads) for weight in part.parameters())


def test_formats_apart_are_two_mocos(setting: Any) -> None:
    """Without losses between them, what a voxel is says nothing to points."""
    method, batch = setting("depthcontrast", across=0.0)
    method(batch).loss.backward()
    alone = [weight.grad.clone() for weight in method.encoders["points"].parameters()]
    method.zero_grad()
    *points, voxel, other = batch.views
    tokens = voxel.value._replace(value=1 - voxel.value.value)
    method(batch._replace(views=(*points, voxel._replace(value=tokens), other))).loss.backward()
    torch.testing.assert_close([weight.grad for weight in method.encoders["points"].parameters()], alone)
    setup = Setup(Backbone(), Train.model_construct(), 1, (2048,))
    [error] = KIND.check(KIND.Hyper(within=0.0, across=0.0), setup)
    assert error.paths == ("hyper.within", "hyper.across")


def test_the_recipe_is_that_of_the_authors() -> None:
    """configs/point_vox_template.yaml of DepthContrast's code; 32 GPUs of 32 clouds each."""
    spec = read("scannet/depthcontrast")
    optim, hyper, points, voxels = spec.optim, spec.hyper, spec.input.points, spec.input.voxels
    assert (optim.name, optim.lr, optim.min_lr, optim.momentum) == ("sgd", 0.12, 1.2e-4, 0.9)
    assert (optim.weight_decay, optim.decay_all, spec.train.batch) == (1e-4, True, 32 * 32)
    assert (hyper.temperature, hyper.queue, hyper.momentum, hyper.dim) == (0.1, 131072, 0.999, 128)
    assert (hyper.within, hyper.across) == (0.5, 0.5)
    for knobs in (points, voxels):
        assert (knobs.points, knobs.crop_min, knobs.rotation, knobs.scale, knobs.flip) == (8192, 0.5, "any", 1.2, True)
        assert knobs.translation == 0

"""What every objective keeps to, whichever are there."""

import json
import re
import sys
from collections.abc import Callable, Iterator
from functools import partial
from itertools import cycle, islice
from pathlib import Path

import numpy as np
import pytest
import torch
from rough import RoughProducts, RoughReductions
from small import built
from torch import Tensor, nn
from torch.optim import Optimizer
from unread import ValueReadError, unread

from selfsup import checkpoint
from selfsup.contract import tensors
from selfsup.knob import knob_lines
from selfsup.masks import BoolMask
from selfsup.method import Method, load, names
from selfsup.optim import build
from selfsup.sections import Optim
from selfsup.train import read, train

FAMILIES = (
    "autoregression",
    "baseline",
    "clustering",
    "contrastive",
    "cross-modal",
    "distillation",
    "equivariance",
    "image-text",
    "latent prediction",
    "pretext",
    "reconstruction",
    "redundancy reduction",
)
ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden"
SCALARS = re.search(r"that\s+learn\s+a\s+scalar \(([^)]+):", (ROOT / "infra/README.md").read_text())
WHOLE = {"mae": {"decoder_width": 512, "decoder_depth": 8, "decoder_heads": 16}}  # of which the first losses are


LAYERS = {  # products that are a part of the model, in functions of ours
    ("selfsup.encoder", "_embed"),
    ("selfsup.methods.flexpredict", "forward"),
    ("selfsup.methods.mixedae", "best"),
    ("selfsup.methods.uniter", "_patches_told"),
}
CASES = [(name, kind) for name in names() for kind in load(name).backbones]


@pytest.fixture(scope="module", params=CASES, ids="-".join)
def case(request: pytest.FixtureRequest) -> tuple[str, str]:
    """An objective and a kind of encoder that it takes, by turns, so that its tests copy what is made once."""
    return request.param


def test_the_registry_is_the_folder() -> None:
    assert {"mae", "simclr"} <= set(names())


@pytest.mark.parametrize("name", names())
def test_a_method_says_what_it_is(name: str) -> None:
    method = load(name)
    assert method.family in FAMILIES
    assert method.paper in sys.modules[method.__module__].__doc__
    assert all(line.doc and not line.doc.endswith(".") for line in knob_lines(method.Hyper))


def test_forward_is_a_pure_function(case, setting) -> None:
    """It draws nothing, changes neither batch nor weights, and says the same twice."""
    method, batch = setting(*case)
    running = {name for name, _ in method.named_buffers() if "running" in name or "num_batches" in name}
    before = {name: value.clone() for name, value in method.state_dict().items() if name not in running}
    given, random = [tensor.clone() for tensor in tensors(batch)], torch.get_rng_state()
    first, second = method(batch), method(batch)
    assert first.loss.shape == ()
    assert first.loss.equal(second.loss)
    assert torch.get_rng_state().equal(random)
    after = method.state_dict()
    assert all(value.equal(after[name]) for name, value in before.items())
    assert all(a.equal(b) for a, b in zip(tensors(batch), given, strict=True))


def test_a_seed_says_what_a_method_is(case) -> None:
    (one, batch), (two, again), (other, _) = built(*case), built(*case), built(*case, seed=1)
    assert one(batch).loss.equal(two(again).loss)
    assert not one(batch).loss.equal(other(batch).loss)


def test_the_gradient_reaches_every_weight_that_is_trained(case, setting) -> None:
    method, batch = setting(*case)
    with torch.no_grad():  # a residual branch that begins at zero passes nothing on
        for module in method.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.fill_(1.0)
            if isinstance(module, nn.Linear) and not module.weight.any():
                module.weight.normal_(std=0.1)
    method(batch).loss.backward()
    trained = {name: weight.grad for name, weight in method.named_parameters() if weight.requires_grad}
    assert [name for name, grad in trained.items() if grad is None] == []
    matrices = {name: grad for name, grad in trained.items() if grad.ndim > 1}  # a shift before a batch norm has none
    assert [name for name, grad in matrices.items() if not grad.any()] == []


def test_those_that_learn_a_scalar_are_named_as_refused_by_fsdp(case, setting) -> None:
    method, _ = setting(*case)
    assert SCALARS
    named = re.findall(r"`(\w+)`", SCALARS[1])
    assert any(weight.ndim == 0 for weight in method.parameters()) == (case[0] in named)


def test_every_sample_takes_part(case, setting) -> None:
    """By the gradient, and where a view has none, a target's for example, by the loss itself."""
    method, batch = setting(*case)
    values = [view.value if isinstance(view.value, Tensor) else view.value.value for view in batch.views]
    for value in values:
        value.requires_grad_(value.is_floating_point())
    loss = method(batch).loss
    loss.backward()
    for view, value in zip(batch.views, values, strict=True):
        if value.grad is not None:
            assert value.grad[view.rows].flatten(1).any(dim=1).all()
            continue
        for sample in value.detach():
            change = sample.neg_ if sample.is_floating_point() else partial(sample.bitwise_xor_, 1)
            change()
            assert not method(batch).loss.equal(loss)
            change()


def test_autocast_changes_the_loss_little(case, setting) -> None:
    """Layers compute in bf16, and what is made of their outputs in fp32."""
    method, batch = setting(*case)
    exact = method(batch).loss
    with torch.autocast("cpu", dtype=torch.bfloat16), RoughProducts() as products, RoughReductions() as reductions:
        rough = method(batch).loss
    assert products.places <= LAYERS
    assert reductions.names <= ({"mean"} if case[1] == "cnn" else set()), "but for the mean of a CNN's places"
    assert rough.dtype == torch.float32
    torch.testing.assert_close(rough, exact, rtol=0.03, atol=0.01)  # a cosine may be near 0


@pytest.mark.parametrize("name", ["depth_estimator", "object_detector", "segmenter"])
def test_autocast_changes_the_loss_of_maps_little(name: str, setting) -> None:
    test_autocast_changes_the_loss_little((f"dense.{name}", "vit"), setting)


def test_evaluation_gets_the_encoder_that_was_trained(case, setting) -> None:
    method, batch = setting(*case)
    trunk = method.encoder(batch.views[0].modality)
    before = trunk.pooled(batch.views[0].value)
    optimizer = torch.optim.SGD(method.parameters(), lr=0.1)
    out = method(batch)
    out.loss.backward()
    optimizer.step()
    method.after_step(0.0, {name: value.detach() for name, value in out.aux.items()})
    assert before.shape == (8, trunk.dim)
    assert not trunk.pooled(batch.views[0].value).equal(before)
    with pytest.raises(KeyError):
        method.encoder("sound")


def test_a_restored_run_goes_on_bit_for_bit(case, setting, tmp_path: Path) -> None:
    """Seven steps are four, a checkpoint and three, in which an epoch of two ends, and labels of it change.

    Whatever is frozen, queued, clustered or scheduled on the way; queues are full by then.
    """
    name, kind = case
    rates = {"vit": {"name": "adamw", "lr": 1e-3}, "cnn": {"name": "lars", "lr": 1.0}}
    optim, backbone = Optim(**rates[kind], lr_batch=8), "narrow cnn" if kind == "cnn" else kind

    def run(method: Method, optimizer: Optimizer, start: int) -> Iterator[dict[str, float]]:
        batches = islice(cycle([batch, other]), start, None)
        steps = train(method, method, optimizer, batches, optim=optim, start=start, steps=10, **settings)
        return map(read, islice(steps, 7 - start))

    settings = {"warmup_steps": 2, "batch_size": 8, "seed": 0}
    (whole, batch), (restored, other) = (setting(name, backbone, seed=seed) for seed in (0, 1))
    optimizer, fresh = build(whole, optim), build(restored, optim)
    list(islice(going := run(whole, optimizer, 0), 4))
    checkpoint.save(tmp_path, step=4, module=whole.state_dict(), optimizer=optimizer.state_dict(), resolved={}, keep=1)
    start, _ = checkpoint.resume(tmp_path, module=restored, optimizer=fresh, resolved={})
    assert list(run(restored, fresh, start)) == list(going)
    state = whole.state_dict()
    assert all(value.equal(state[name]) for name, value in restored.state_dict().items())


def test_it_never_waits_for_the_device(case, setting) -> None:
    """No operation reads a value. Only SeLa's relabeling does, a hundred times a run."""
    method, batch = setting(*case, **{"sela": {"relabels": 1}}.get(case[0], {}))
    there = [view.mask.number for view in batch.views if isinstance(view.mask, BoolMask)]
    there += [view.has for view in batch.views if view.has is not None]
    with unread(there):
        out = method(batch)
        out.loss.backward()
        method.after_step(0.5, {name: value.detach() for name, value in out.aux.items()})


READS: dict[str, Callable[[Tensor], object]] = {
    "item": lambda x: x[0].item(),
    "truth": lambda x: bool(x.any()),
    "number": lambda x: float(x[0]),
    "index": lambda x: list(range(3))[x[1].long()],
    "mask": lambda x: x[x > 1],
    "places": torch.nonzero,
    "comparison": lambda x: x.equal(x),
    "repetition": lambda x: x.repeat_interleave(x.long()),
    "list": Tensor.tolist,
    "array": Tensor.numpy,
    "conversion": np.asarray,
    "number of classes": lambda x: nn.functional.one_hot(x.long()),
}


@pytest.mark.parametrize("read", READS.values(), ids=READS)
def test_a_read_of_a_value_is_noticed(read: Callable[[Tensor], object]) -> None:
    x = torch.arange(4.0)
    read(x)
    with unread(), pytest.raises(ValueReadError):
        read(x)


@pytest.mark.parametrize("name", names())
def test_the_first_losses_stay_what_they_were(name: str) -> None:
    """Not a proof of correctness but a witness of change: a new number is a new result, and its commit says why.

    A new objective's file is written from the message of this test, once its other tests pass.
    """
    kind = load(name).backbones[0]
    method, batch = built(name, "whole cnn" if kind == "cnn" else kind, **WHOLE.get(name, {}))
    optimizer, losses = torch.optim.SGD(method.parameters(), lr=1e-3), []
    for step in range(3):
        out = method(batch)
        losses.append(out.loss.item())
        optimizer.zero_grad()
        out.loss.backward()
        optimizer.step()
        method.after_step(step / 3, {name: value.detach() for name, value in out.aux.items()})
    golden = GOLDEN / f"{name}.json"
    assert golden.exists(), f"write {json.dumps({'losses': losses})} to tests/golden/{name}.json"
    assert losses == pytest.approx(json.loads(golden.read_text())["losses"], rel=1e-4)

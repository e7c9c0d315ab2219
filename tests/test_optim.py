"""Optimizers and schedules against lightly's, MoCo v3's formula, and numbers worked out by hand."""

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from lightly.utils import lars as lightly
from torch import Tensor, nn

from selfsup.method import Method, ParamOptions
from selfsup.optim import LARS, build, decay_at, lr_at, param_groups, peak_lr, schedule
from selfsup.spec import Optim

FUSED = {"fused": True}


def weights() -> list[Tensor]:
    """A convolution, a matrix, a vector: the shapes that LARS treats in two ways."""
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in [(4, 3, 3, 3), (5, 4), (5,)]]


def gradients(step: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1 + step)
    return [torch.randn(weight.shape, generator=generator, dtype=torch.float64) for weight in weights()]


def after_three_steps(optimizer: torch.optim.Optimizer, rates: Sequence[float] = ()) -> list[Tensor]:
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for step in range(3):
        for parameter, gradient in zip(parameters, gradients(step), strict=True):
            parameter.grad = gradient
        for group in optimizer.param_groups if rates else ():
            group["lr"] = rates[step]
        optimizer.step()
    return [parameter.detach() for parameter in parameters]


def grouped(weight_decay: float) -> list[dict[str, Any]]:
    matrices, vectors = [nn.Parameter(w) for w in weights()[:2]], [nn.Parameter(weights()[2])]
    return [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_lars_is_moco_v3s_formula(weight_decay: float) -> None:
    lr, momentum, trust = 0.3, 0.9, 0.02
    expected, velocity = weights(), [torch.zeros_like(weight) for weight in weights()]
    for step in range(3):
        for number, gradient in enumerate(gradients(step)):
            weight = expected[number]
            if weight.ndim > 1:
                decayed = gradient + weight_decay * weight
                gradient = decayed * trust * math.sqrt((weight**2).sum()) / math.sqrt((decayed**2).sum())
            velocity[number] = momentum * velocity[number] + gradient
            expected[number] = weight - lr * velocity[number]
    optimizer = LARS(grouped(weight_decay), lr=lr, momentum=momentum, trust=trust)
    torch.testing.assert_close(after_three_steps(optimizer), expected, rtol=1e-12, atol=1e-12)


def test_simclrs_lars_averages_steps() -> None:
    """Its velocity takes each gradient at the rate of its time: after 0.1, 0.4, 0.2 the first still counts at 0.1."""
    rates, momentum, trust, weight_decay = (0.1, 0.4, 0.2), 0.9, 0.02, 0.1
    expected, velocity = weights(), [torch.zeros_like(weight) for weight in weights()]
    for step, lr in enumerate(rates):
        for number, gradient in enumerate(gradients(step)):
            weight, ratio = expected[number], 1.0
            if weight.ndim > 1:
                gradient = gradient + weight_decay * weight
                ratio = trust * math.sqrt((weight**2).sum()) / math.sqrt((gradient**2).sum())
            velocity[number] = momentum * velocity[number] + lr * ratio * gradient
            expected[number] = weight - velocity[number]
    optimizer = LARS(grouped(weight_decay), lr=1.0, momentum=momentum, trust=trust, form="simclr")
    torch.testing.assert_close(after_three_steps(optimizer, rates), expected, rtol=1e-12, atol=1e-12)
    plain = LARS(grouped(weight_decay), lr=1.0, momentum=momentum, trust=trust)
    assert not torch.allclose(after_three_steps(plain, rates)[0], expected[0], rtol=1e-3)


def test_larc_adapts_and_decays_every_weight() -> None:
    """Equation 6 of LARS, then torch's SGD: |w| over the sum of two norms, for the vector, too."""
    trust, weight_decay, parameters = 0.02, 0.1, [nn.Parameter(weight) for weight in weights()]
    sgd = torch.optim.SGD(parameters, lr=0.3, momentum=0.9)
    for step in range(3):
        for parameter, gradient in zip(parameters, gradients(step), strict=True):
            weight = parameter.detach()
            length, slope = math.sqrt((weight**2).sum()), math.sqrt((gradient**2).sum())
            ratio = trust * length / (slope + weight_decay * length)
            parameter.grad = ratio * (gradient + weight_decay * weight)
        sgd.step()
    groups = [{"params": [nn.Parameter(weight) for weight in weights()], "weight_decay": weight_decay}]
    optimizer = LARS(groups, lr=0.3, momentum=0.9, trust=trust, form="larc")
    expected = [parameter.detach() for parameter in parameters]
    torch.testing.assert_close(after_three_steps(optimizer), expected, rtol=1e-12, atol=1e-12)


def test_a_state_without_a_form_is_that_of_the_form_that_all_had() -> None:
    saved = LARS(grouped(0.1), lr=0.3).state_dict()
    for group in saved["param_groups"]:
        del group["form"]
    optimizer = LARS(grouped(0.1), lr=0.3)
    optimizer.load_state_dict(saved)
    expected = after_three_steps(LARS(grouped(0.1), lr=0.3))
    assert all(a.equal(b) for a, b in zip(after_three_steps(optimizer), expected, strict=True))


def test_larc_is_given_decay_for_every_weight() -> None:
    optimizer = build(Module(), Optim(name="lars", lars_form="larc", weight_decay=1e-6))
    assert {group["weight_decay"] for group in optimizer.param_groups} == {1e-6}


def test_lars_is_lightlys_at_the_decay_of_ssl() -> None:
    """lightly adds the norms of gradient and decay, we take the norm of their sum: 2e-6 |w| / |g| apart at most."""
    theirs = lightly.LARS(grouped(1e-6), lr=0.3, momentum=0.9, trust_coefficient=0.02, eps=0.0)
    ours = LARS(grouped(1e-6), lr=0.3, momentum=0.9, trust=0.02)
    torch.testing.assert_close(after_three_steps(ours), after_three_steps(theirs), rtol=1e-5, atol=1e-7)


def test_lars_lets_a_weight_leave_zero() -> None:
    weight = nn.Parameter(torch.zeros(2, 2))
    weight.grad = torch.ones(2, 2)
    LARS([weight], lr=0.5).step()
    assert torch.equal(weight.detach(), torch.full((2, 2), -0.5))


class Module(nn.Module):
    param_options = Method.param_options

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.norm = nn.Linear(3, 2), nn.LayerNorm(2)
        self.token, self.scale = nn.Parameter(torch.zeros(1, 1, 2)), nn.Parameter(torch.ones(()))
        self.frozen = nn.Parameter(torch.zeros(4, 4), requires_grad=False)


def test_only_matrices_decay_and_frozen_parameters_are_left_out() -> None:
    module = Module()
    decayed, free = param_groups(module, 0.05)
    assert (decayed["weight_decay"], free["weight_decay"]) == (0.05, 0.0)
    assert {id(p) for p in decayed["params"]} == {id(module.linear.weight), id(module.token)}
    vectors = [module.linear.bias, module.norm.weight, module.norm.bias, module.scale]
    assert {id(p) for p in free["params"]} == {id(p) for p in vectors}


class Spared(Module):
    def param_options(self, name: str, weight: Tensor) -> ParamOptions:  # noqa: ARG002
        return ParamOptions(no_weight_decay=name == "token")


@pytest.mark.parametrize(("name", "expected"), [("sgd", 0.5 * 0.1 * 0.2), ("adamw", 0.5 * 0.2)])
def test_biases_and_norms_decay_where_told_so(name: Any, expected: float) -> None:
    """One step without a gradient at decay 0.2, for weights of 0.5: SGD and AdamW take lr * decay * weight away."""
    module, optim = Spared(), Optim(name=name, lr=0.1 if name == "sgd" else 1.0, weight_decay=0.2, decay_all=True)
    optimizer = build(module, optim)
    for weight in module.parameters():
        torch.nn.init.constant_(weight, 0.5)
        weight.grad = torch.zeros_like(weight)
    optimizer.step()
    for part, weight in module.named_parameters():
        lost = 0.0 if part in ("token", "frozen") else expected
        torch.testing.assert_close(weight.detach(), torch.full_like(weight, 0.5 - lost), msg=part)


@pytest.mark.parametrize(
    ("optim", "kind", "expected"),
    [
        (Optim(name="adamw", lr=0.2, betas=(0.8, 0.9)), torch.optim.AdamW, FUSED | {"lr": 0.2, "betas": (0.8, 0.9)}),
        (
            Optim(name="sgd", lr=0.2, momentum=0.7),
            torch.optim.SGD,
            FUSED | {"lr": 0.2, "momentum": 0.7, "nesterov": False},
        ),
        (Optim(name="lars", lr=0.2, momentum=0.7, trust=0.02), LARS, {"lr": 0.2, "momentum": 0.7, "trust": 0.02}),
    ],
)
def test_the_spec_reaches_the_optimizer(optim: Optim, kind: type, expected: dict[str, Any]) -> None:
    optimizer = build(Module(), optim)
    assert type(optimizer) is kind
    for group, decay in zip(optimizer.param_groups, [optim.weight_decay, 0.0], strict=True):
        assert expected.items() <= group.items()
        assert group["weight_decay"] == decay


@pytest.mark.parametrize(("rule", "peak"), [("linear", 0.6), ("sqrt", 0.3), ("none", 0.15)])
def test_batch_rules(rule: Any, peak: float) -> None:
    lr_batch = {} if rule == "none" else {"lr_batch": 256}
    assert peak_lr(Optim(lr=0.15, lr_rule=rule, **lr_batch), 1024) == pytest.approx(peak, rel=1e-12)


def test_schedule_by_hand() -> None:
    """Two steps up, then 0.1 + 0.45 (1 + cos(pi t)) at t = 0, 1/8, ..., 7/8."""
    rates = [lr_at(step, Optim(min_lr=0.1), steps=10, warmup=2, peak=1.0) for step in range(10)]
    assert rates[:3] == [0.5, 1.0, 1.0]
    assert rates[4] == pytest.approx(0.1 + 0.45 * (1 + math.sqrt(0.5)), rel=1e-12)
    assert rates[6] == pytest.approx(0.55, rel=1e-12)
    assert rates[8] == pytest.approx(0.1 + 0.45 * (1 - math.sqrt(0.5)), rel=1e-12)
    assert rates[2:] == sorted(rates[2:], reverse=True)


def test_warmup_may_begin_above_zero() -> None:
    """SwAV's: from 0.3 to 4.8, here in five steps of 0.9, the first of which is taken at once."""
    rates = [lr_at(step, Optim(warmup_lr=0.3), steps=8, warmup=5, peak=4.8) for step in range(6)]
    assert rates == pytest.approx([1.2, 2.1, 3.0, 3.9, 4.8, 4.8], rel=1e-12)
    optim = Optim(lr=0.3, warmup={"steps": 5}, warmup_lr=0.3)
    assert schedule(build(Module(), optim), optim, 0, steps=8, warmup=5, batch=4096) == pytest.approx(1.2)


def test_schedule_in_drops() -> None:
    """MoCo v1's: 200 epochs of 5 steps, a tenth of the rate after 120 and after 160; then with a fifth."""
    optim = Optim(drops=(0.6, 0.8))
    rates = [lr_at(step, optim, steps=1000, warmup=10, peak=0.03) for step in range(1000)]
    assert rates[4:6] == pytest.approx([0.015, 0.018])
    assert rates[10:600] == [0.03] * 590
    assert rates[600:800] == pytest.approx([0.003] * 200)
    assert rates[800:] == pytest.approx([0.0003] * 200)
    fifth = optim.model_copy(update={"drop_factor": 0.2})
    assert lr_at(900, fifth, steps=1000, warmup=0, peak=1.0) == pytest.approx(0.04)


def test_schedule_at_its_ends() -> None:
    assert lr_at(0, Optim(), steps=4, warmup=0, peak=1.0) == 1.0
    assert lr_at(3, Optim(), steps=4, warmup=4, peak=1.0) == 1.0
    with pytest.raises(AssertionError):
        lr_at(4, Optim(), steps=4, warmup=0, peak=1.0)


class Paced(Module):
    def param_options(self, name: str, weight: Tensor) -> ParamOptions:
        if name.startswith("norm"):
            return ParamOptions(lr_scale=0.5, constant_lr=True)
        return ParamOptions(frozen_until=0.25) if weight.ndim > 1 else ParamOptions()


def test_a_weight_moves_at_its_own_pace() -> None:
    """Warm-up over 2 of 8 steps, then a cosine; the norm goes on at half the peak, matrices stand still for 2 steps."""
    module, optim = Paced(), Optim(name="sgd", lr=0.4, lr_rule="none", momentum=0.0, weight_decay=0.0)
    optimizer, rates = build(module, optim), []
    for step in range(8):
        before = {name: weight.detach().clone() for name, weight in module.named_parameters()}
        for weight in module.parameters():
            weight.grad = torch.ones_like(weight)
        rates.append(schedule(optimizer, optim, step, steps=8, warmup=2, batch=256))
        optimizer.step()
        moved = {name: float((before[name] - weight.detach()).max()) for name, weight in module.named_parameters()}
        assert moved["linear.bias"] == pytest.approx(rates[-1], abs=1e-6)
        assert moved["norm.weight"] == pytest.approx(0.5 * (0.4 if step >= 2 else rates[-1]), abs=1e-6)
        assert moved["linear.weight"] == pytest.approx(rates[-1] if step >= 2 else 0.0, abs=1e-6)
    assert rates == [lr_at(step, optim, steps=8, warmup=2, peak=0.4) for step in range(8)]


def test_decay_follows_a_cosine_and_spares_vectors() -> None:
    optim = Optim(weight_decay=0.04, weight_decay_end=0.4)
    assert [decay_at(t, optim) for t in (0.0, 0.5, 1.0)] == pytest.approx([0.04, 0.22, 0.4])
    optimizer = build(Module(), optim)
    schedule(optimizer, optim, 5, steps=10, warmup=0, batch=256)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [pytest.approx(0.22), 0.0]
    assert decay_at(0.5, Optim(weight_decay=0.04)) == 0.04

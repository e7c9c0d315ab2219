"""The loop: a step is a function of its inputs, whatever happens between steps and however a batch is cut."""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.distributed import GradBucket
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.futures import Future
from torch.nn.parallel import DistributedDataParallel

from selfsup import checkpoint
from selfsup.batch import Batch, View, blank_batch
from selfsup.errors import NonFiniteError
from selfsup.knob import Knobs
from selfsup.masks import RandomMask
from selfsup.method import Method, Out, ParamOptions
from selfsup.optim import build
from selfsup.parts.tokens import Tokens
from selfsup.spec import Optim
from selfsup.train import Step, backward, read, split, train
from selfsup.views import Crop, Views

BATCH, TOKENS, PIXELS = 8, 6, 5
STEPS = 6


class Toy(Method):
    """As MAE: the error at removed tokens. With a random layer, and a center that moves after each step, as DINO's."""

    paper = "0000.00000"
    separable = True
    Hyper = Knobs

    def __init__(self, *, dropout: float = 0.0) -> None:
        nn.Module.__init__(self)
        torch.manual_seed(0)
        self.into, self.out = nn.Linear(PIXELS, 16), nn.Linear(16, PIXELS)
        self.norm, self.dropout = nn.LayerNorm(16), nn.Dropout(dropout)
        self.register_buffer("center", torch.zeros(PIXELS))
        self.times: list[float] = []

    @classmethod
    def views(cls, hyper: Knobs) -> Views:  # noqa: ARG003 (the interface)
        return Views((Crop(mask=RandomMask(0.5)),))

    def encoder(self, modality: str) -> Any:
        raise NotImplementedError

    def forward(self, batch: Batch) -> Out:
        pixels, removed = batch.views[0].value.value, batch.views[0].mask.removed
        hidden = self.dropout(self.norm(self.into(pixels * ~removed[..., None])).relu())
        error = (self.out(hidden).float() - pixels).square().mean(-1)
        return Out((error * removed).sum() / removed.sum(), {"pixel": pixels.mean()}, {"mean": pixels.mean(1)})

    def after_step(self, t: float, aux: Mapping[str, Tensor]) -> None:
        self.times.append(t)
        self.center.lerp_(aux["mean"].mean(0), 1 - t)


def batch_at(step: int) -> Batch:
    generator = torch.Generator().manual_seed(100 + step)
    value = 1 + torch.randn(BATCH, TOKENS, PIXELS, generator=generator)
    coord = torch.zeros(BATCH, TOKENS, 2, dtype=torch.int64)
    mask = RandomMask(0.5).draw(torch.rand(BATCH, TOKENS, generator=generator), (TOKENS,))
    number, blank = torch.arange(BATCH) + step * BATCH, blank_batch(Views((Crop(size=1),)), 1, BATCH)
    view = blank.views[0]._replace(value=Tokens(value, coord, (TOKENS,)), mask=mask)
    return blank._replace(views=(view,), sample=number, label=number)


def stream(start: int = 0) -> Iterator[Batch]:
    step = start
    while True:
        yield batch_at(step)
        step += 1


def run(method: Method, optim: Optim, *, optimizer: Any = None, module: Any = None, **changed: Any) -> Iterator[Step]:
    start = changed.setdefault("start", 0)
    settings = {"batches": stream(start), "steps": STEPS, "warmup_steps": 2, "batch_size": BATCH, "seed": 3} | changed
    return train(module or method, method, optimizer or build(method, optim), optim=optim, **settings)


def same(one: nn.Module, other: nn.Module) -> bool:
    ours, theirs = one.state_dict(), other.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


OPTIMS = [
    Optim(name="adamw", lr=0.01, lr_batch=BATCH, weight_decay=0.1),
    Optim(name="sgd", lr=0.1, lr_batch=BATCH, weight_decay=0.1),
    Optim(name="lars", lr=10.0, lr_batch=BATCH, weight_decay=0.1),
]


@pytest.mark.parametrize("optim", OPTIMS, ids=lambda optim: optim.name)
def test_restored_equals_uninterrupted_bit_for_bit(tmp_path: Path, optim: Optim) -> None:
    whole = Toy(dropout=0.5)
    expected = [read(step) for step in run(whole, optim)]

    killed = Toy(dropout=0.5)
    optimizer = build(killed, optim)
    logs = []
    for step in run(killed, optim, optimizer=optimizer):
        logs.append(read(step))
        if step.number == 3:
            checkpoint.save(
                tmp_path, step=3, module=killed.state_dict(), optimizer=optimizer.state_dict(), resolved={}, keep=1
            )
        if step.number == 4:  # this step dies with its process
            break

    torch.manual_seed(12345)  # another process: nothing is left of the first but its checkpoint
    restored = Toy(dropout=0.5)
    nn.init.zeros_(restored.into.weight)
    optimizer = build(restored, optim)
    start = checkpoint.resume(tmp_path, module=restored, optimizer=optimizer, resolved={}).step
    rest = [read(step) for step in run(restored, optim, optimizer=optimizer, start=start)]

    assert logs[:3] + rest == expected
    assert same(restored, whole)
    assert not same(whole, Toy(dropout=0.5))


def test_random_layers_follow_seed_and_step_alone() -> None:
    def losses(seed: int, start: int = 0) -> list[float]:
        frozen = Optim(name="sgd", lr=1e-12, momentum=0.0, weight_decay=0.0)
        same_batch = iter([batch_at(0)] * STEPS)
        steps = run(Toy(dropout=0.5), frozen, seed=seed, start=start, batches=same_batch)
        return [read(step)["loss"] for step in steps]

    first = losses(seed=3)
    assert losses(seed=3, start=2) == pytest.approx(first[2:], rel=1e-6)
    assert len({round(loss, 4) for loss in first + losses(seed=4)}) == 2 * STEPS


@pytest.mark.parametrize("optim", OPTIMS, ids=lambda optim: optim.name)
def test_accumulation_is_one_big_batch(optim: Optim) -> None:
    whole, cut = Toy(), Toy()
    expected = [read(step) for step in run(whole, optim)]
    found = [read(step) for step in run(cut, optim, accumulate=4)]
    assert found == [pytest.approx(log, rel=1e-4) for log in expected]
    torch.testing.assert_close(cut.state_dict(), whole.state_dict(), rtol=1e-3, atol=1e-4)


def test_accumulated_gradient_is_that_of_one_big_batch() -> None:
    batch = batch_at(0)
    tokens = batch.views[0].value
    double = batch._replace(views=(batch.views[0]._replace(value=tokens._replace(value=tokens.value.double())),))
    whole, cut = Toy().double(), Toy().double()
    backward(whole, double)
    backward(cut, double, accumulate=4)
    ours, theirs = ([parameter.grad for parameter in module.parameters()] for module in (cut, whole))
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-7)  # the loss itself is taken in single precision


def test_split_keeps_order_and_shape() -> None:
    batch = batch_at(0)
    images = View("image", torch.randn(BATCH, 3, 4, 4), None, torch.randn(BATCH, 5))
    first, second = split(batch._replace(views=(batch.views[0], images)), 2)
    assert (type(first), type(first.views), type(first.views[0].value)) == (Batch, tuple, Tokens)
    assert torch.equal(torch.cat([first.views[0].mask.keep, second.views[0].mask.keep]), batch.views[0].mask.keep)
    assert torch.equal(second.views[0].value.value, batch.views[0].value.value[BATCH // 2 :])
    assert torch.equal(second.views[1].value, images.value[BATCH // 2 :])
    assert (second.views[1].modality, second.views[1].mask) == ("image", None)
    assert torch.equal(second.sample, torch.arange(BATCH // 2, BATCH))


@pytest.mark.parametrize("clip_norm", [None, 0.01])
def test_plain_sgd_moves_by_rate_times_gradient(clip_norm: float | None) -> None:
    """Peak 0.1 * 8 / 4 = 0.2; half of it, all of it, then a cosine over two steps: 0.2, 0.1."""
    optim = Optim(name="sgd", lr=0.1, lr_batch=4, momentum=0.0, weight_decay=0.0, clip_norm=clip_norm)
    method = Toy()
    before = nn.utils.parameters_to_vector(method.parameters()).detach().clone()
    for step, lr in zip(run(method, optim, steps=4), [0.1, 0.2, 0.2, 0.1], strict=True):
        log = read(step)
        after = nn.utils.parameters_to_vector(method.parameters()).detach().clone()
        assert log["lr"] == step.lr == pytest.approx(lr, rel=1e-12)
        assert log["grad_norm"] > 0.01
        assert float((after - before).norm()) == pytest.approx(lr * (clip_norm or log["grad_norm"]), rel=1e-3)
        before = after


def test_each_weight_can_be_clipped_by_itself() -> None:
    optim = Optim(name="sgd", lr=0.1, lr_rule="none", momentum=0.0, weight_decay=0.0, clip_each=0.01)
    method, bare = Toy(), Toy()
    before = [weight.detach().clone() for weight in method.parameters()]
    backward(bare, batch_at(0))
    next(run(method, optim, steps=4))
    for old, new, other in zip(before, method.parameters(), bare.parameters(), strict=True):
        assert float((new.detach() - old).norm()) == pytest.approx(0.05 * min(0.01, float(other.grad.norm())), rel=2e-3)


class Grouped(Toy):
    def param_options(self, name: str, weight: Tensor) -> ParamOptions:  # noqa: ARG002
        return ParamOptions(clip_group={"into": "in", "norm": ""}.get(name.partition(".")[0], "out"))


@pytest.mark.parametrize("clip", ["clip_norm", "clip_each"])
def test_groups_are_clipped_apart(clip: str) -> None:
    """A step of SGD at half its rate moves weights by 0.05 times their gradients, after these are clipped."""
    optim = Optim(name="sgd", lr=0.1, lr_rule="none", momentum=0.0, weight_decay=0.0, **{clip: 1e-3})
    method, bare = Grouped(), Grouped()
    before = {name: weight.detach().clone() for name, weight in method.named_parameters()}
    backward(bare, batch_at(0))
    grads = {name: weight.grad for name, weight in bare.named_parameters()}
    step = next(run(method, optim, steps=4))
    expected = {"norm.weight": grads["norm.weight"], "norm.bias": grads["norm.bias"]}  # of the group ""
    for layer in ("into", "out"):
        both = grads[f"{layer}.weight"], grads[f"{layer}.bias"]
        together = math.sqrt(sum(float((grad**2).sum()) for grad in both))
        assert together > 1e-3
        for part, grad in zip(("weight", "bias"), both, strict=True):
            norm = together if clip == "clip_norm" else float(grad.norm())
            expected[f"{layer}.{part}"] = grad * min(1.0, 1e-3 / (norm + 1e-6))
    moves = {name: (before[name] - weight.detach()) / 0.05 for name, weight in method.named_parameters()}
    torch.testing.assert_close(moves, expected, rtol=1e-2, atol=3e-6)
    whole = torch.cat([grad.flatten() for grad in grads.values()]).norm()
    assert read(step)["grad_norm"] == pytest.approx(float(whole), rel=1e-6)


def test_it_learns() -> None:
    losses = [read(step)["loss"] for step in run(Toy(), OPTIMS[0], batches=iter([batch_at(0)] * 50), steps=50)]
    assert losses[-1] < 0.9 * losses[0]


def test_after_step_is_told_the_share_done() -> None:
    whole, restored = Toy(), Toy()
    for method, start in [(whole, 0), (restored, 4)]:
        list(run(method, OPTIMS[1], steps=8, start=start))
    assert whole.times == [0, 1 / 8, 2 / 8, 3 / 8, 4 / 8, 5 / 8, 6 / 8, 7 / 8]
    assert restored.times == whole.times[4:]


def test_no_more_batches_are_taken_than_steps_and_no_fewer() -> None:
    source = iter([batch_at(step) for step in range(STEPS + 1)])
    assert [step.number for step in run(Toy(), OPTIMS[1], batches=source)] == list(range(1, STEPS + 1))
    assert len(list(source)) == 1
    with pytest.raises(RuntimeError, match="StopIteration"):
        list(run(Toy(), OPTIMS[1], batches=iter([batch_at(0)])))


def test_bf16_computes_in_bf16_and_keeps_weights_in_fp32() -> None:
    method, seen = Toy(), set()
    method.into.register_forward_hook(lambda *told: seen.add(told[-1].dtype))
    logs = [read(step) for step in run(method, OPTIMS[1], precision="bf16")]
    exact = [read(step) for step in run(Toy(), OPTIMS[1])]
    assert seen == {torch.bfloat16}
    assert {parameter.dtype for parameter in method.parameters()} == {torch.float32}
    assert [log["loss"] for log in logs] == pytest.approx([log["loss"] for log in exact], rel=0.02)


@pytest.mark.parametrize("optim", OPTIMS, ids=lambda optim: optim.name)
def test_only_read_waits_for_the_device(optim: Optim) -> None:
    """Fake tensors have no values: whoever asks for one fails."""
    method, clipped = Toy(dropout=0.5), optim.model_copy(update={"clip_norm": 1.0})
    with FakeTensorMode(allow_non_fake_inputs=True):
        *_, last = run(method, clipped, steps=2, batches=iter([batch_at(0), batch_at(1)]), accumulate=2)
        with pytest.raises(DataDependentOutputException):
            read(last)


def test_what_is_not_finite_is_still_seen_steps_later() -> None:
    poisoned = batch_at(1)
    poisoned.views[0].value.value[0, 0, 0] = math.inf
    steps = list(run(Toy(), OPTIMS[0], batches=iter([batch_at(0), poisoned, *map(batch_at, range(2, STEPS))])))
    assert math.isfinite(read(steps[0])["loss"])
    for step in steps[1:]:
        with pytest.raises(NonFiniteError, match=rf"step {step.number}: loss is nan .*optim\.lr"):
            read(step)


def test_a_gradient_that_is_not_finite_is_named() -> None:
    with pytest.raises(NonFiniteError, match=r"step 5: grad_norm is inf at learning rate 0\.1"):
        read(Step(5, 0.1, {"loss": torch.tensor(1.0), "grad_norm": torch.tensor(math.inf)}))


@pytest.fixture
def process_group() -> Iterator[None]:
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.usefixtures("process_group")
def test_workers_exchange_gradients_once_a_step() -> None:
    alone, wrapped, exchanges = Toy(), Toy(), []
    module = DistributedDataParallel(wrapped)

    def counting(state: Any, bucket: GradBucket) -> Future[Tensor]:
        exchanges.append(len(bucket.parameters()))
        return allreduce_hook(state, bucket)

    module.register_comm_hook(None, counting)
    for _ in run(wrapped, OPTIMS[1], module=module, accumulate=4):
        pass
    for _ in run(alone, OPTIMS[1], accumulate=4):
        pass
    assert exchanges == [len(list(wrapped.parameters()))] * STEPS
    assert same(wrapped, alone)

"""The cost of a plan, computed without running it: the objective's step is traced on torch's meta device."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.flop_counter import FlopCounterMode

from selfsup import input_kinds, modality
from selfsup.batch import blank_batch
from selfsup.conflicts import min_below_max
from selfsup.errors import SpecError
from selfsup.input_kinds import sizes_of, views_of
from selfsup.layers import located
from selfsup.method import Method, TrainInfo, layouts, load
from selfsup.outside import is_outside, short
from selfsup.parts.units import units
from selfsup.pipelines import chain, lacking, objective, summary
from selfsup.pipelines.planned import PlannedRun
from selfsup.progress import several
from selfsup.recall import once
from selfsup.spec import Run
from selfsup.train import cut
from selfsup.views import Views

Answer = TypeVar("Answer")
MOMENTS = {"adamw": 2, "sgd": 1, "lars": 1}  # copies of the weights that the optimizer keeps


@dataclass(frozen=True)
class Cost:
    """Parameters of the whole objective and of its encoder; bytes a worker; floating-point operations a sample."""

    parameters: int
    encoder_parameters: int
    state_bytes: int
    activation_bytes: int
    flops: float


def cost(run: Run, info: TrainInfo) -> Cost:
    """Return the cost of one worker's forward and backward pass. Weights, gradients and moments count as fp32.

    Raises SpecError where its numbers overflow.
    """
    train, endless = run.train, info._replace(num_steps=0, steps_per_epoch=0)  # of any length the same
    settings = [train.batch, train.accumulate, train.checkpoint_activations, run.worker_counts[0], run.optim.name]
    return Cost(**_recalled(["cost", *settings], run, endless, lambda: asdict(_cost(run, info))))


def _recalled(question: list[Any], run: Run, info: TrainInfo, answer: Callable[[], Answer]) -> Answer:
    """Return the answer to a question on an objective, which is kept if it is selfsup's own, on an encoder of timm."""
    backbones = [run.backbone, *run.kinds.towers.values()]
    if info.teacher or is_outside(run.method) or any(is_outside(backbone.name) for backbone in backbones):
        return answer()
    encoders = [backbone.model_dump(exclude={"weights"}) for backbone in backbones]
    return once([*question, run.method, run.hyper.model_dump(), encoders, run.input.model_dump(), info], answer)


def _cost(run: Run, info: TrainInfo) -> Cost:
    method, share, pieces = meta_method(run, info), run.train.batch // run.worker_counts[0], run.train.accumulate
    micro_batches = cut(method, pieces)
    activations, flops = _traced(method, run, share // micro_batches, info)
    if micro_batches < pieces:  # beside what the whole batch keeps, a piece at a time is computed again
        cut(method, 1)
        activations += _traced(method, run, share, info)[0] // pieces
    trainable = count(method, trainable=True)
    state = 4 * (count(method) + trainable * (1 + MOMENTS[run.optim.name]))
    trunk = method.encoder(run.modality)
    return Cost(count(method), count(trunk), state, activations, flops)


def _traced(method: Method, run: Run, size: int, info: TrainInfo) -> tuple[int, float]:
    """Return the bytes that `size` samples keep for the backward pass, and floating-point operations a sample."""
    with _countable(run), FlopCounterMode(display=False) as counter, saved() as sizes:
        views = views_of(method.views(run.hyper), run.kinds, run.backbone)
        parts = [_measured(unit, sizes) for unit in units(method) if run.train.checkpoint_activations]
        patch, beside = method.encoder(run.modality).patch, layouts(method, info)
        out = method(blank_batch(views, patch, size, "meta", info.channels, beside))
        saves = [call for calls in parts for call in calls]
        activations = sum(sizes.values()) + sum(given - kept for given, kept in saves)
        activations += max((kept for _, kept in saves), default=0)  # of the one that is computed again
        out.loss.backward()
    return activations, counter.get_total_flops() / size


@contextmanager
def _countable(run: Run) -> Iterator[None]:
    """Raise SpecError where the block makes a tensor whose bytes torch cannot count in 63 bits."""
    try:
        yield
    except RuntimeError as error:
        if "overflow" not in str(error):
            raise
        message = (
            f"the layers of {short(run.method)} are larger than any memory ({error}); make hyper or backbone smaller"
        )
        raise SpecError(message, "hyper", "backbone") from None


def cautions(run: Run, info: TrainInfo) -> Iterator[str]:
    """Yield a warning for each setting with which the objective was never shown to learn, or cannot."""
    kind = load(run.method)
    if run.train.batch < kind.least_batch:
        yield f"{short(run.method)} with batches of {run.train.batch}: its paper shows none below {kind.least_batch}"
    if idle := [*_idle_settings(run), *_idle_knobs(run)]:
        yield f"{', '.join(idle)}: without effect on {run.modality}"
    if run.train.accumulate > 1:
        yield from _in_pieces(run, info)
    if kind.freezes or is_outside(run.method):
        yield from _too_short(run, info)


def _idle_settings(run: Run) -> Iterator[str]:
    """Yield the settings in the spec that change nothing of this kind of data, or are of what is not read beside it."""
    given = {name for name in load(run.method).beside if getattr(run.input, name, None) is not None}
    yield from (f"input.{name}" for name in sorted(given - {*run.beside}))
    for path in input_kinds.idle(run.kinds):
        section, name = path.split(".")
        if name in getattr(run, section).model_fields_set:
            yield path


def _idle_knobs(run: Run) -> Iterator[str]:
    """Yield the method's knobs in the spec that are of images' views alone, which other kinds of data do not have."""
    views = load(run.method).views
    own = views(run.hyper)
    for name, field in type(run.hyper).model_fields.items():
        if field.is_required() or name not in run.hyper.model_fields_set:
            continue
        usual = run.hyper.model_copy(update={name: field.default})
        if any(min_below_max(usual)):
            continue
        other = views(usual)
        if own != other and own.beside == other.beside and _seen(run, own) == _seen(run, other):
            yield f"hyper.{name}"


def _seen(run: Run, views: Views) -> Views:
    return views_of(views, run.kinds, run.backbone)


def _in_pieces(run: Run, info: TrainInfo) -> Iterator[str]:
    """Yield a warning where `train.accumulate` changes results, which the batch statistics of an encoder do."""
    pieces = run.train.accumulate
    if _recalled(["normalizes batches"], run, info, lambda: _normalizes_batches(run, info)):
        size = run.train.batch // pieces
        norms = f"batch normalization in the encoder sees {pieces} pieces of {size} samples, one after the other"
        yield f"train.accumulate: {norms}; all else of {short(run.method)} sees the whole batch of {run.train.batch}"


def _normalizes_batches(run: Run, info: TrainInfo) -> bool:
    """Return whether pieces of a batch are normalized apart."""
    method = meta_method(run, info)
    seen = method if method.separable else method.encoders
    return any(isinstance(layer, _BatchNorm) for layer in seen.modules())


def _too_short(run: Run, info: TrainInfo) -> Iterator[str]:
    shortest = info._replace(num_steps=1, steps_per_epoch=1)  # what moves in it moves in any
    begins = _recalled(["begins"], run, shortest, lambda: _begins(run, shortest))
    if begins >= 1:
        begins = _recalled(["begins"], run, info, lambda: _begins(run, info))
    if begins >= 1:
        first = f"none of its weights moves in the first {begins * info.num_steps:.0f}"
        yield f"{short(run.method)} learns nothing in {info.num_steps} steps: {first}; train for longer"


def _begins(run: Run, info: TrainInfo) -> float:
    """Return the share of training before which no weight moves."""
    method = meta_method(run, info)
    weights = method.named_parameters()
    return min(method.param_options(name, weight).frozen_until for name, weight in weights if weight.requires_grad)


def meta_method(run: Run, info: TrainInfo) -> Method:
    with _countable(run):
        return objective.blank(run, info)


@contextmanager
def saved() -> Iterator[dict[int, int]]:
    """Yield storage -> bytes of all that autograd keeps for the backward pass in the block, but for weights."""
    sizes: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        if not isinstance(tensor, nn.Parameter) and not tensor.is_leaf:
            storage = tensor.untyped_storage()
            sizes[storage._cdata] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        yield sizes


def _measured(unit: nn.Module, sizes: Mapping[int, int]) -> list[tuple[int, int]]:
    """Return a list to which each call of a unit adds bytes: given, and kept. sizes: of all that is kept."""
    calls: list[tuple[int, int]] = []
    forward = unit.forward

    def measured(*given: Any, **options: Any) -> Any:
        before = sum(sizes.values())
        out = forward(*given, **options)
        if kept := sum(sizes.values()) - before:
            calls.append((sum(x.nbytes for x in given if isinstance(x, Tensor) and x.requires_grad), kept))
        return out

    unit.forward = measured
    return calls


def count(module: nn.Module, *, trainable: bool = False) -> int:
    return sum(weight.numel() for weight in module.parameters() if weight.requires_grad or not trainable)


def describe(plans: Sequence[Sequence[PlannedRun]]) -> str:
    """Return the plans of some specs as text: data, cost, and every run with its stages, done (*) or to do."""
    shown = [[summary.summarize(run) for run in planned] for planned in plans]
    runs, firsts = {run.id: run for planned in plans for run in planned}, map(summary.first_of, shown)
    return summary.describe(shown, [facts(runs[first.id]) if first.own else () for first in firsts])


def facts(planned: PlannedRun) -> list[tuple[str, str]]:
    """Return what a plan says of a training, by what it is about: encoder, weights, length, compute, memory ..."""
    with located(planned.root):
        run, price = planned.run, cost(planned.run, planned.info)
    train, needs = run.train, run.resources
    samples = planned.steps * train.batch
    epochs = samples / planned.learned.num_samples
    state, activations = price.state_bytes, price.activation_bytes
    parts = run.worker_counts[0] if train.sharding == "fsdp" else 1
    *fewer, most = run.worker_counts
    workers = " or ".join(filter(None, [", ".join(map(str, fewer)), several(most, "worker")]))
    gpus = f" and {needs.gpus_per_worker:g} GPUs" if needs.gpus_per_worker else ""
    feeder = {"threads": "threads of the workers", "ray": "tasks of Ray"}[planned.feeder]
    return [
        ("encoder", f"{run.backbone.name}, {_sizes(run)}"),
        ("weights", f"{price.parameters / 1e6:.2f} M, {price.encoder_parameters / 1e6:.2f} M of them in the encoder"),
        ("length", f"{planned.steps:,} steps of {train.batch}: {samples:,} samples, {epochs:.1f} epochs"),
        *(("during", line) for line in _during(planned, price)),
        ("compute", f"{price.flops / 1e9:.3g} GFLOP a sample, {price.flops * samples / 1e12:,.3g} TFLOP a run"),
        (
            "memory",
            f"{state / parts / 2**20:,.0f} MiB of state, {activations / 2**20:,.0f} MiB of activations a worker",
        ),
        ("needs", f"{workers} of {needs.cpus_per_worker:g} CPUs{gpus}, {needs.data_cpus:g} CPUs for data: {feeder}"),
        *lacking.note(run, planned.train),
        *_remarks(run, planned.info),
    ]


def _during(planned: PlannedRun, price: Cost) -> Iterator[str]:
    """Yield such as "5 evaluations by knn; encoders wait for theirs on disk, 5 of 1.4 MiB at most"."""
    if due := len(planned.due):
        names = " and ".join(name for name, evaluation in planned.evals.items() if evaluation.has_curve)
        parameters = price.encoder_parameters + (price.parameters if objective.METHOD in planned.leaves else 0)
        size = f"{due} of {4 * parameters / 2**20:,.1f} MiB at most"
        yield f"{several(due, 'evaluation')} by {names}; encoders wait for theirs on disk, {size}"


def _sizes(run: Run) -> str:
    """Return such as "224 rows x 224 columns"."""
    sizes, axes = sizes_of(run.kinds, run.backbone), modality.load(run.modality).axes
    return " x ".join(several(size, axis) for size, axis in zip(sizes, axes, strict=True))


def _remarks(run: Run, info: TrainInfo) -> Iterator[tuple[str, str]]:
    yield from (("beware", text) for text in cautions(run, info))
    if run.teacher and chain.is_idle("teacher", run):
        yield (
            "beware",
            f"teacher: {run.teacher.source} teaches {short(run.method)} nothing with these knobs",
        )
    if run.published:
        apart = run.published.linear is not None and "linear" not in run.published.comparable
        beside = "; not to be set beside eval/linear, which is trained on features embedded once" if apart else ""
        yield "known", f"{run.published}; of the recipe as it stands in its file{beside}"

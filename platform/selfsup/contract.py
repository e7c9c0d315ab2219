"""The contracts of an objective, checked on a tiny random batch on the CPU: `selfsup check-method ./mine.py`."""

import io
import tempfile
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import islice, repeat
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from selfsup import checkpoint, encoder, modality
from selfsup.batch import Batch, Layout, blank_batch
from selfsup.encoder import Encoder
from selfsup.frozen import Frozen
from selfsup.input_kinds import InputKinds, shape_beside, shape_of, views_of
from selfsup.masks import Mask, MaskRule
from selfsup.method import Method, TrainInfo, layouts, load, names
from selfsup.optim import build
from selfsup.parts.patch import Patch
from selfsup.parts.tokens import Grid, Tokens
from selfsup.promises import need_defaults, outcome
from selfsup.sections import Backbone, InputShape, Optim
from selfsup.train import read, train
from selfsup.views import MapSpec, Views

SIZE, PATCH, SAMPLES = 32, 8, 8
CHANNELS, POINTS = 3, 96  # of a sample; of a cloud, of which a view shows some
DATA = 4096  # samples of the data set: more than an objective of clusters has of these
BACKBONES = {
    "vit": Backbone(name="vit_tiny_patch16_224", image_size=SIZE, patch_size=PATCH, width=48, depth=2, heads=3),
    "cnn": Backbone(name="resnet18", image_size=SIZE, stem="small", width=16),  # oneDNN 3.13 crashes below 16
}


class Example(NamedTuple):
    """An objective at its initial weights, and a batch of what it asks for."""

    method: Method
    batch: Batch


def check(name: str) -> Iterator[tuple[str, str]]:
    """Yield each contract, on each kind of backbone, and how the method breaks it; "" where it keeps it.

    Raises SpecError for a method that cannot be loaded, or that has knobs without a default.
    """
    method = load(name)
    need_defaults(name, method.Hyper)
    for kind in method.backbones:
        for title, contract in CONTRACTS.items():
            yield f"{title}, on a {kind}", outcome(contract, partial(example, method, BACKBONES[kind]))


def example(method: type[Method], backbone: Backbone, seed: int, samples: int = SAMPLES) -> Example:
    """Return an objective and a batch, both functions of the seed."""
    torch.manual_seed(seed)
    hyper = method.Hyper()
    kinds = cheap_kinds(method, method.views(hyper))
    shape = shape_of(kinds, backbone, CHANNELS)
    trunk = encoder.build(backbone, method.initialize, shape)
    info = TrainInfo(num_samples=DATA, num_classes=3, num_steps=10, steps_per_epoch=2, sizes=shape.sizes)
    info = info._replace(teacher=example_teacher(method, backbone, info))
    views, towers, shapes = beside(method, method.views(hyper), kinds, backbone)
    info = info._replace(beside=shapes)
    made = method(hyper, {kinds.name: trunk, **towers}, info)
    return Example(made, random_batch(views, trunk.patch, samples, layouts(made, info)))


def cheap_kinds(method: type[Method], views: Views) -> InputKinds:
    """Return kinds of data that an objective learns from, at small settings: images, if it does, and what it reads."""
    known = method.modalities or ("image",)
    own = {name: modality.load(name) for name in ("image" if "image" in known else known[0], *views.beside)}
    [(name, knobs), *others] = [(name, kind.Input(**kind.cheap)) for name, kind in own.items()]
    return InputKinds(name, knobs, dict(others))


def beside(
    method: type[Method], views: Views, kinds: InputKinds, backbone: Backbone
) -> tuple[Views, dict[str, Encoder], dict[str, InputShape]]:
    """Return views of samples and of what lies beside them, small towers of the latter, and its shapes."""
    channels = {name: modality.load(name).Reading().channels or CHANNELS for name in kinds.beside}
    shapes = {
        name: shape_beside(name, kinds, backbone, number, one_trunk=method.one_trunk)
        for name, number in channels.items()
    }
    towers = {} if method.one_trunk else {name: _tower(method, name, kinds, backbone, shapes[name]) for name in shapes}
    return views_of(views, kinds, backbone), towers, shapes


def _tower(method: type[Method], name: str, kinds: InputKinds, backbone: Backbone, shape: InputShape) -> Encoder:
    kind = modality.load(name)
    if kind.is_companion:
        return kind.tower(kinds.beside[name])
    return encoder.build(backbone, method.initialize, shape)


def example_teacher(method: type[Method], backbone: Backbone, info: TrainInfo) -> Frozen | None:
    """Return a teacher of the kind that an objective learns from, at its initial weights; None for one that needs none.

    Its targets are made of random features.
    """
    hyper = method.Hyper()
    lesson = method.lesson(hyper)
    if lesson is None:
        return None
    usable = (load(name) for name in names())
    kind = next(kind for kind in usable if kind.lesson(kind.Hyper()) is None and _teaches(kind, lesson, backbone))
    trunk = encoder.build(backbone, kind.initialize)
    features, sample = torch.randn(info.num_samples, trunk.dim), torch.arange(info.num_samples)
    targets = None
    if lesson == "targets":
        targets = method.prepare(hyper, features, sample, info.num_samples, seed=0)
    return Frozen(kind(kind.Hyper(), {"image": trunk}, info), trunk.patch, targets=targets)


def _teaches(kind: type[Method], lesson: str, backbone: Backbone) -> bool:
    fits = ("vit" if backbone.is_vit else "cnn") in kind.backbones
    return fits and (lesson != "codes" or kind.codes is not Method.codes)


def random_batch(
    views: Views, patch: Patch | None, samples: int, beside: Mapping[str, Layout] = MappingProxyType({})
) -> Batch:
    """Return a batch as the stream would deliver it, of random pixels, or clouds: a function of torch's seed.

    beside: of other modalities.
    """
    blank, usual = blank_batch(views, patch, samples, beside=beside), Layout(CHANNELS, patch)
    own = _posed(views, {view.modality: beside.get(view.modality, usual) for view in views.specs}, samples)
    values = [
        own[number][0] if number in own else _random_value(view, beside.get(view.modality, usual), samples)
        for number, view in enumerate(views.specs)
    ]
    grids = [() if isinstance(value, Tensor) else value.grid for value in values]
    rules = [crop.mask if patch else None for crop in views.specs]
    masks = [_random_mask(rule, samples, grid) if rule else None for rule, grid in zip(rules, grids, strict=True)]
    draws, boxes = torch.rand(samples, views.draws), [*random_boxes(samples, len(values)).unbind(1)]
    boxes = [own[number][1] if number in own else box for number, box in enumerate(boxes)]
    parts = zip(blank.views, values, masks, boxes, strict=True)
    return blank._replace(
        views=tuple(view._replace(value=value, mask=mask, box=box) for view, value, mask, box in parts),
        sample=torch.arange(samples),
        label=torch.arange(samples) % 3,
        draws=draws,
        maps=tuple(_random_map(spec, map_) for spec, map_ in zip(views.maps, blank.maps, strict=True)),
    )


def _random_value(view: Any, layout: Layout, samples: int) -> Tokens | Tensor:
    """Return pixels; of companions, whose values are small numbers, such ones."""
    kind, shape = modality.load(view.modality), (samples, view.channels or layout.channels, *view.lengths)
    values = torch.randint(8, shape) if kind.is_companion else torch.randn(shape)
    return kind.seen(values, layout.patch)


Shown = tuple[Tokens | Tensor, Tensor]  # the value and the boxes of a view


def _posed(views: Views, layouts: Mapping[str, Layout], samples: int) -> dict[int, Shown]:
    """Return the views that have poses, by number: each of them of some points of the same clouds."""
    numbers = [number for number, view in enumerate(views.specs) if modality.load(view.modality).pose]
    clouds = [_file(torch.randn(POINTS, CHANNELS)) for _ in range(samples)] if numbers else []
    return {number: _shown(views.specs[number], clouds, layouts) for number in numbers}


def _shown(view: Any, clouds: list[bytes], layouts: Mapping[str, Layout]) -> Shown:
    """Return a view of clouds as the stream delivers it, placed, turned and moved at random."""
    kind, samples = modality.load(view.modality), len(clouds)
    extents = np.full((samples, len(kind.axes)), POINTS)
    boxes = kind.place(view, extents, torch.rand(samples, kind.place_draws).numpy())
    raw = [kind.load(cloud, box[None], [view], kind.Reading())[0] for cloud, box in zip(clouds, boxes, strict=True)]
    loaded = torch.from_numpy(np.stack(raw)).to(torch.get_default_dtype())
    seen = kind.seen(kind.augment(loaded, view, torch.empty(samples, 0)), layouts[view.modality].patch)
    return seen, torch.from_numpy(np.concatenate([boxes, extents], axis=1)).to(loaded)


def _file(values: Tensor) -> bytes:
    """Return the .npy of an array."""
    sink = io.BytesIO()
    np.save(sink, values.numpy())
    return sink.getvalue()


def _random_map(spec: MapSpec, blank: Tensor) -> Tensor:
    """Return squares of eight pixels, of up to ten meters, classes or objects; a tenth of them none of these."""
    coarse = torch.rand(len(blank), 1, -(-blank.shape[1] // 8), -(-blank.shape[2] // 8))
    fine = torch.nn.functional.interpolate(coarse, scale_factor=8.0)[:, 0, : blank.shape[1], : blank.shape[2]]
    none = -1.0 if spec.name == "seg" else 0.0
    values = torch.where(fine < 0.1, none, fine * min(10, spec.classes or 10))
    return values.to(blank.dtype)


def _random_mask(rule: MaskRule, samples: int, grid: Grid) -> Mask:
    noise, first = torch.rand(samples, rule.num_draws(grid)), rule.num_shared(grid)
    noise[:, :first] = noise[:1, :first].clone()
    return rule.draw(noise, grid)


def random_boxes(samples: int, views: int) -> Tensor:
    """-> (samples, views, 7): squares of 20 pixels within 10 of each other, half mirrored, in images of 30 by 40."""
    corner, size = 10 * torch.rand(samples, views, 2), torch.full((samples, views, 2), 20.0)
    image = torch.tensor([30.0, 40.0]).expand(samples, views, 2)
    return torch.cat([corner, size, torch.rand(samples, views, 1).round(), image], dim=2)


def tensors(value: object) -> Iterator[Tensor]:
    """Yield every tensor in tuples, however nested."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple):
        for part in value:
            yield from tensors(part)


Contract = Callable[[Callable[[int], Example]], str]


def _is_deterministic(make: Callable[[int], Example]) -> str:
    method, batch = make(0)
    random = torch.get_rng_state()
    first, second = method(batch).loss, method(batch).loss
    if first.shape != ():
        return f"the loss has the shape {tuple(first.shape)}, not ()"
    if not torch.get_rng_state().equal(random):
        return "forward draws random numbers; take them from batch.draws"
    return "" if first.equal(second) else f"the losses of two calls are {first.item()} and {second.item()}"


def _changes_nothing(make: Callable[[int], Example]) -> str:
    method, batch = make(0)
    statistics = ("running_mean", "running_var", "num_batches_tracked")  # batch normalization's own
    state = {name: value for name, value in method.state_dict().items() if not name.endswith(statistics)}
    before, given = {name: value.clone() for name, value in state.items()}, [value.clone() for value in tensors(batch)]
    method(batch)
    if changed := [name for name, value in state.items() if not value.equal(before[name])]:
        return f"forward changes {', '.join(changed)}; do that in after_step"
    kept = all(value.equal(old) for value, old in zip(tensors(batch), given, strict=True))
    return "" if kept else "forward changes the batch"


def _trains_every_weight(make: Callable[[int], Example]) -> str:
    method, batch = make(0)
    method(batch).loss.backward()
    grads = {name: weight.grad for name, weight in method.named_parameters() if weight.requires_grad}
    if missing := [name for name, grad in grads.items() if grad is None]:
        return f"no gradient reaches {', '.join(missing)}"
    endless = [name for name, grad in grads.items() if grad is not None and not grad.isfinite().all()]
    return f"the gradient is not finite in {', '.join(endless)}" if endless else ""


def _is_a_function_of_the_seed(make: Callable[[int], Example]) -> str:
    first, second = (method(batch).loss for method, batch in (make(0), make(0)))
    return "" if first.equal(second) else f"the losses from one seed are {first.item()} and {second.item()}"


def _survives_a_checkpoint(make: Callable[[int], Example]) -> str:
    """Compare four steps with two steps, a checkpoint and two steps more."""
    settings = Optim(lr_batch=SAMPLES)
    (whole, batch), (killed, _), (restored, _) = make(0), make(0), make(1)
    optimizers = [build(method, settings) for method in (whole, killed, restored)]

    def losses(method: Method, number: int, start: int, stop: int) -> list[dict[str, float]]:
        common = {"optim": settings, "steps": 4, "warmup_steps": 1, "batch_size": SAMPLES, "seed": 0}
        steps = train(method, method, optimizers[number], repeat(batch), start=start, **common)  # type: ignore[arg-type]
        return [read(step) for step in islice(steps, stop - start)]

    expected = losses(whole, 0, 0, 4)
    losses(killed, 1, 0, 2)
    with tempfile.TemporaryDirectory() as folder:
        checkpoint.save(
            Path(folder), step=2, module=killed.state_dict(), optimizer=optimizers[1].state_dict(), resolved={}, keep=1
        )
        start, _ = checkpoint.resume(Path(folder), module=restored, optimizer=optimizers[2], resolved={})
    if losses(restored, 2, start, 4) != expected[2:]:
        return "steps after a checkpoint differ from those without; what must survive it is a parameter or a buffer"
    differing = [name for name, value in whole.state_dict().items() if not value.equal(restored.state_dict()[name])]
    return f"after a checkpoint these differ: {', '.join(differing)}" if differing else ""


CONTRACTS: dict[str, Contract] = {
    "forward is deterministic and draws nothing": _is_deterministic,
    "forward changes no weight, buffer or batch": _changes_nothing,
    "a finite gradient reaches every trained weight": _trains_every_weight,
    "equal seeds give equal losses": _is_a_function_of_the_seed,
    "a restored run goes on exactly": _survives_a_checkpoint,
}

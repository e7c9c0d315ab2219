"""Training steps at equal work: ours, and those of the example loops of transformers and lightly.

Each takes the device and the number of images, and trains on one batch of normalized images. Patching and masking,
which our platform does in `collate`, are in our step, as they are in theirs.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

import lightly_loops
import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer
from transformers import VideoMAEConfig, VideoMAEForPreTraining, ViTMAEConfig, ViTMAEForPreTraining

from selfsup import encoder, optim
from selfsup.batch import Batch, blank_batch
from selfsup.method import TrainInfo, load
from selfsup.parts.patch import Patch, patchify
from selfsup.pipelines.data.collate import drawn_mask
from selfsup.pipelines.modalities.video import Video, VideoInput
from selfsup.sections import Backbone, InputShape, Optim, image_shape
from selfsup.train import Precision, train
from selfsup.tubemask import TubeMask
from selfsup.views import Views, sized

MASK_RATIO = 0.75
STEPS = 10**9  # more than anyone takes
INFO = TrainInfo(num_samples=1_281_167, num_classes=1000, num_steps=STEPS, steps_per_epoch=5004)


class Loop(NamedTuple):
    """step: one of them, whole. The module is called once in it."""

    module: nn.Module
    optimizer: Optimizer
    step: Callable[[], object]


class Task(NamedTuple):
    """What a step of ours and one of lightly's example do alike. example: made from its trunk. hyper: its widths.

    clip: what samples are, where they are no images.
    """

    method: str
    example: Callable[[nn.Module], nn.Module]
    hyper: Mapping[str, Any]
    backbone: Backbone = Backbone(name="resnet18")
    clip: VideoInput | None = None

    @property
    def views(self) -> Views:
        method = load(self.method)
        views = method.views(method.Hyper(**self.hyper))
        if self.clip is None:
            return sized(views, self.backbone.image_size)
        return Video().views(views, self.shape.sizes, self.clip)

    @property
    def shape(self) -> InputShape:
        if self.clip is None:
            return image_shape(self.backbone)
        return InputShape(3, Video().sizes(self.backbone, self.clip), Video().leading(self.clip))


SIMCLR = Task("simclr", lightly_loops.simclr, {"temperature": 0.5})
IJEPA = Task("ijepa", lightly_loops.IJEPA, {}, Backbone(name="vit_small_patch16_224"))
SIMPLE = Optim(name="sgd", lr=0.06, momentum=0.0, weight_decay=0.0)


def mae(device: str, size: int, precision: Precision) -> Loop:
    task = Task("mae", lightly_loops.MAE, {"mask_ratio": MASK_RATIO}, Backbone(name="vit_small_patch16_224"))
    told = Optim(name="adamw", lr=1.5e-4, weight_decay=0.05, betas=(0.9, 0.95))
    return ours(task, device, size, precision, told=told)


def vitmae(device: str, size: int, precision: Precision) -> Loop:
    """As transformers' Trainer does it, with the optimizer that it takes by default."""
    images = torch.randn(size, 3, 224, 224, device=device)
    config = ViTMAEConfig(
        hidden_size=384, num_hidden_layers=12, num_attention_heads=6, intermediate_size=1536, mask_ratio=MASK_RATIO
    )
    module = ViTMAEForPreTraining(config).to(device).train()
    optimizer = AdamW(module.parameters(), lr=1.5e-4, weight_decay=0.05, betas=(0.9, 0.95), fused=True)
    return _theirs(module, optimizer, lambda: module(images).loss, device, precision)


def videomae(device: str, size: int, precision: Precision) -> Loop:
    hyper = {"mask": "tube", "mask_ratio": 0.9, "norm_pix_loss": True, "norm_channels": True}
    decoder = {"decoder_width": 192, "decoder_depth": 4, "decoder_heads": 3}
    backbone = Backbone(name="vit_base_patch16_gap_224", width=384, depth=12, heads=6, pool="mean")
    told = Optim(name="adamw", lr=1.5e-4, weight_decay=0.05, betas=(0.9, 0.95))
    task = Task("mae", lightly_loops.MAE, hyper | decoder, backbone, VideoInput())
    return ours(task, device, size, precision, told=told)


def hf_videomae(device: str, size: int, precision: Precision) -> Loop:
    """As transformers' Trainer does it, on clips and masks that are drawn for each step."""
    clips = torch.randn(size, 16, 3, 224, 224, device=device)
    config = VideoMAEConfig(
        hidden_size=384,
        num_hidden_layers=12,
        num_attention_heads=6,
        intermediate_size=1536,
        use_mean_pooling=False,
        decoder_hidden_size=192,
        decoder_num_hidden_layers=4,
        decoder_num_attention_heads=3,
        decoder_intermediate_size=768,
    )
    module = VideoMAEForPreTraining(config).to(device).train()
    optimizer = AdamW(module.parameters(), lr=1.5e-4, weight_decay=0.05, betas=(0.9, 0.95), fused=True)

    def loss() -> Tensor:
        hidden = TubeMask(0.9).draw(torch.rand(size, 196), (8, 14, 14), device).removed
        out: Tensor = module(clips, bool_masked_pos=hidden).loss
        return out

    return _theirs(module, optimizer, loss, device, precision)


def simclr(device: str, size: int, precision: Precision) -> Loop:
    return ours(SIMCLR, device, size, precision)


def lightly(device: str, size: int, precision: Precision) -> Loop:
    return example(SIMCLR, device, size, precision)


def ijepa(device: str, size: int, precision: Precision) -> Loop:
    return ours(IJEPA, device, size, precision)


def lightly_ijepa(device: str, size: int, precision: Precision) -> Loop:
    return example(IJEPA, device, size, precision)


def ours(task: Task, device: str, size: int, precision: Precision, *, told: Optim = SIMPLE) -> Loop:
    kind = load(task.method)
    trunk = encoder.build(task.backbone, kind.initialize, task.shape)
    modality = "video" if task.clip else "image"
    method = kind(kind.Hyper(**task.hyper), {modality: trunk}, INFO).to(device)
    optimizer = optim.build(method, told)
    settings = {"start": 0, "steps": STEPS, "warmup_steps": 0, "batch_size": told.lr_batch, "seed": 0}
    batches = _batches(task.views, trunk.patch, device, size)
    steps = train(method, method, optimizer, batches, optim=told, precision=precision, **settings)
    return Loop(method, optimizer, lambda: next(steps))


def example(task: Task, device: str, size: int, precision: Precision) -> Loop:
    module = task.example(lightly_loops.trunk(task.backbone)).to(device)
    views = images(task.views, device, size)
    return _theirs(module, SGD(module.parameters(), lr=SIMPLE.lr), lambda: module(views), device, precision)


def images(views: Views, device: str, size: int) -> tuple[Tensor, ...]:
    return tuple(torch.randn(size, 3, *view.lengths, device=device) for view in views.specs)


def _batches(views: Views, patch: Patch | None, device: str, size: int) -> Iterator[Batch]:
    blank, made = blank_batch(views, patch, size, device), images(views, device, size)
    while True:
        draw = partial(torch.rand, size)
        tokens = [patchify(view, patch) if patch else None for view in made]
        values = tokens if patch else made
        grids = [token and token.grid for token in tokens]
        masks = [drawn_mask(view.mask, grid, draw, draw, device) for view, grid in zip(views.specs, grids, strict=True)]
        shown = zip(blank.views, values, masks, strict=True)
        yield blank._replace(views=tuple(view._replace(value=value, mask=mask) for view, value, mask in shown))


def _theirs(
    module: nn.Module, optimizer: Optimizer, forward: Callable[[], Tensor], device: str, precision: Precision
) -> Loop:
    def step() -> None:
        with torch.autocast(device, dtype=torch.bfloat16, enabled=precision == "bf16"):
            loss = forward()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return Loop(module, optimizer, step)

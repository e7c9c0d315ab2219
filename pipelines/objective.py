"""Objectives as training has them: at initial weights, with their teachers, or on the meta device for a plan."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from selfsup import encoder, tensors
from selfsup.blank import without_memory
from selfsup.encoder import Encoder
from selfsup.frozen import Frozen, Rescale
from selfsup.input_kinds import shape_beside, shape_of, sizes_of
from selfsup.method import Method, TrainInfo, load
from selfsup.modality import load as load_modality
from selfsup.parts.patch import Patch
from selfsup.pipelines.data.manifest import Manifest
from selfsup.saved import read_encoder
from selfsup.sections import InputShape
from selfsup.spec import BASELINES, Run

ENCODER, METHOD, TARGETS = "encoder.safetensors", "method.safetensors", "targets.safetensors"


@dataclass(frozen=True)
class TrainedMethod:
    """A finished training that another one learns from. info: its own, without a teacher.

    folder: of its weights; None: an encoder at given ones, not trained here. teacher: of its own. targets: the file of
    what the learner's `prepare` made.
    """

    run: Run
    info: TrainInfo
    folder: Path | None
    teacher: "TrainedMethod | None" = None
    targets: Path | None = None


def build(
    run: Run,
    info: TrainInfo,
    device: torch.device,
    *,
    teacher: TrainedMethod | None = None,
    start: Path | None = None,
) -> Method:
    """Return the objective at its initial weights, a function of spec and seed; the encoder's of backbone and seed.

    start: the file of an encoder whose weights it begins with; of all weights where the spec says so. Raises
    CheckpointError for damaged files of earlier stages.
    """
    torch.manual_seed(run.seed)
    trunk = initial_encoder(run, info.channels)
    if start and not run.starts_whole:
        trunk.trunk.load_state_dict(read_encoder(start).state)
    with torch.random.fork_rng(devices=[]):  # a teacher's initial weights, soon replaced, are drawn, too
        taught = frozen(teacher, trunk.patch, info) if teacher else None
    method = load(run.method)(run.hyper, _encoders(run, trunk, info), info._replace(teacher=taught))
    if start and run.starts_whole:
        tensors.fill(method, start)
    return method.to(device)


def _encoders(run: Run, trunk: Encoder, info: TrainInfo) -> dict[str, Encoder]:
    """Return the encoders of an objective by modality, that of the backbone first."""
    others = () if load(run.method).one_trunk else run.beside
    return {run.modality: trunk} | {name: _tower(run, name, info) for name in others}


def _tower(run: Run, name: str, info: TrainInfo) -> Encoder:
    kind, kinds = load_modality(name), run.kinds
    if kind.is_companion:
        return kind.tower(kinds.beside[name])
    return encoder.build(kinds.towers.get(name, run.backbone), load(run.method).initialize, info.beside[name])


def frozen(trained: TrainedMethod, patch: Patch | None, learner: TrainInfo) -> Frozen:
    """Return a teacher at its trained weights. patch: points a side of the learner's tokens."""
    if not trained.folder:
        return given(trained.run, trained.info, patch, learner)
    method = build(trained.run, trained.info, torch.device("cpu"), teacher=trained.teacher)
    tensors.fill(method, trained.folder / METHOD)
    targets = tensors.load(trained.targets)[0]["targets"] if trained.targets else None
    return Frozen(method, patch, rescale(learner, trained.info), targets)


class GivenEncoder(nn.Module):
    """An encoder at the weights that a spec gives, in the place of an objective that others learn from."""

    def __init__(self, modality: str, trunk: Encoder) -> None:
        super().__init__()
        self.encoders = nn.ModuleDict({modality: trunk})

    def encoder(self, modality: str) -> nn.Module:
        return self.encoders[modality]


def given(run: Run, info: TrainInfo, patch: Patch | None, learner: TrainInfo) -> Frozen:
    """Return a teacher at the weights that its spec gives; images are normalized as timm's weights of that name ask."""
    trunk = encoder.build(run.backbone, shape=shape_of(run.kinds, run.backbone, info.channels))
    usual = getattr(trunk.trunk, "pretrained_cfg", {})
    if run.modality == "image" and info.channels == 3 and usual.get("mean"):
        info = info._replace(mean=tuple(usual["mean"]), std=tuple(usual["std"]))
    return Frozen(GivenEncoder(run.modality, trunk), patch, rescale(learner, info))


def blank(run: Run, info: TrainInfo) -> Method:
    """Return the objective on the meta device, without memory."""
    with without_memory():
        bare = _without_weights(run)
        return load(run.method)(bare.hyper, _encoders(bare, initial_encoder(bare, info.channels), info), info)


def blank_taught(run: Run, info: TrainInfo, teacher: Run, teacher_info: TrainInfo) -> TrainInfo:
    """Return the info of a run with its teacher, on the meta device."""
    patch = blank_encoder(run, info.channels).patch
    if teacher.method in BASELINES:
        bare = teacher.model_copy(update={"backbone": teacher.backbone.model_copy(update={"weights": None})})
        with without_memory():
            return info._replace(teacher=given(bare, teacher_info, patch, info))
    return info._replace(teacher=Frozen(blank(teacher, teacher_info), patch, rescale(info, teacher_info)))


def blank_encoder(run: Run, channels: int) -> Encoder:
    with without_memory():
        return initial_encoder(_without_weights(run), channels)


def _without_weights(run: Run) -> Run:
    """Return a run whose backbones have none at given weights."""
    bare = {name: tower.model_copy(update={"weights": None}) for name, tower in run.kinds.towers.items()}
    backbone = run.backbone.model_copy(update={"weights": None})
    return run.model_copy(update={"backbone": backbone, "towers": run.towers.model_copy(update=bare)})


def initial_encoder(run: Run, channels: int) -> Encoder:
    """Return the encoder at the weights that the objective begins with. channels: of the data."""
    shape = shape_of(run.kinds, run.backbone, channels)
    method = load(run.method)
    return encoder.build(run.backbone, method.initialize, shape, mask_units=method.mask_units)


def size(run: Run, data: Manifest, steps: int, steps_per_epoch: int) -> TrainInfo:
    """Return the info of a training on some data, without a teacher."""
    kinds, reading = run.kinds, data.reading(run.modality)
    moments = {"mean": reading.mean, "std": reading.std} if run.modality == "image" else {}
    return TrainInfo(
        num_samples=data.num_samples,
        num_classes=len(data.classes),
        num_steps=steps,
        steps_per_epoch=steps_per_epoch,
        channels=reading.channels,
        beside={name: _shape_beside(run, name, data.reading(name).channels) for name in kinds.beside},
        sizes=sizes_of(run.kinds, run.backbone),
        **moments,
    )


def _shape_beside(run: Run, name: str, channels: int) -> InputShape:
    return shape_beside(name, run.kinds, run.backbone, channels, one_trunk=load(run.method).one_trunk)


def rescale(own: TrainInfo, theirs: TrainInfo) -> Rescale | None:
    """Return the change from samples as a learner sees them to a teacher's; None where both are normalized alike."""
    if (own.mean, own.std) == (theirs.mean, theirs.std):
        return None
    parts = zip(own.mean, own.std, theirs.mean, theirs.std, strict=True)
    changes = [(std / other_std, (mean - other_mean) / other_std) for mean, std, other_mean, other_std in parts]
    scale, shift = zip(*changes, strict=True)
    return Rescale(scale, shift)

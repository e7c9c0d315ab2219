"""The sections of a spec: every setting that is not a method's or an evaluation's own."""

import math
from collections.abc import Mapping
from fractions import Fraction
from os.path import expanduser
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Literal, NamedTuple, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from selfsup.knob import Choice, Knobs, Range, knob
from selfsup.outside import HUGGING_FACE, is_config_folder
from selfsup.redact import REMEDY, has_secret

BASELINES = (
    "pixels",
    "untrained",
)  # methods that train nothing: raw pixels, and the encoder at MAE's or timm's initial weights
Share = Annotated[float, Field(ge=0, lt=1)]
Feeder = Literal["threads", "ray"]
Missing = Literal["fail", "skip"]
Lacking = Literal["fail", "skip", "mask"]
LarsForm = Literal["byol", "simclr", "larc"]


class Duration(Knobs):
    """A length of training, in exactly one unit."""

    steps: int | None = knob(None, "optimizer steps", gt=0)
    epochs: float | None = knob(None, "passes over the training data; parts of one are allowed", gt=0, le=1e9)
    samples: int | None = knob(None, "samples seen, counting repeats", gt=0)

    @model_validator(mode="after")
    def _one_unit(self) -> Self:
        units = [f"{name}: {value}" for name, value in self if value is not None]
        if len(units) != 1:
            raise ValueError(f"give exactly one of steps, epochs, samples, not {' and '.join(units) or 'none'}")
        return self

    def steps_of(self, *, batch: int, steps_per_epoch: int) -> int:
        """Return the duration in steps of `batch` samples, rounded up."""
        if self.steps is not None:
            return self.steps
        if self.samples is not None:
            return math.ceil(Fraction(self.samples, batch))
        return math.ceil(Fraction(str(self.epochs)) * steps_per_epoch)  # 0.1 of 30 is 3; in floats it is a bit more


def _whole(path: str) -> str:
    """Return the absolute path, which is the same in every process, whatever its working directory."""
    return str(Path(expanduser(path)).absolute())  # noqa: PTH111 (Path's raises)


def _shards(url: str | None) -> str | None:
    """Return a URL as it is, and a folder as an absolute path.

    Raises ValueError for an invalid URL, and for one with secrets.
    """
    urlsplit(url or "")
    if url and has_secret(url):
        raise ValueError(REMEDY)
    return url if url is None or "://" in url else _whole(url)


class Data(Knobs):
    train: str = knob(..., "folder or URL of training shards with a manifest, or bundled://photos/train", min_length=1)
    val: str | None = knob(None, "likewise, of the shards that the evaluations score", min_length=1)

    @field_validator("train", "val")
    @classmethod
    def _place(cls, url: str | None) -> str | None:
        return _shards(url)


class EvalData(Knobs):
    train: str | None = knob(None, "shards that the evaluation learns from; null: data.train", min_length=1)
    val: str | None = knob(None, "shards that it is scored on; null: data.val", min_length=1)
    classes: str | None = knob(
        None, "JSON file: a class of val -> its name in train, or null for none; null: named alike", min_length=1
    )
    only_its_classes: bool = knob(False, "name one of the classes of val alone, as of the 200 of ImageNet-A")
    answers: str | None = knob(
        None,
        "JSON file: a sample or class of val -> a list of the classes of train that are right, as ImageNet-ReaL's; "
        "null: its own",
        min_length=1,
    )

    @field_validator("train", "val")
    @classmethod
    def _place(cls, url: str | None) -> str | None:
        return _shards(url)

    @field_validator("classes", "answers")
    @classmethod
    def _file(cls, path: str | None) -> str | None:
        return path if path is None else _whole(path)


class Backbone(Knobs):
    name: str = knob("vit_small_patch16_224", "architecture: timm's name, module:callable, or hf:CONFIG", min_length=1)
    image_size: int = knob(224, "pixels a side of the images it sees", gt=0)
    patch_size: int | None = knob(None, "pixels a side of a token; null: the name's own", gt=0)
    width: int | None = knob(None, "channels of a token, or of a ResNet's first stage; null: its own", symbol="D", gt=0)
    depth: int | None = knob(None, "transformer blocks; null: the name's own", symbol="L", gt=0, le=1000)
    heads: int | None = knob(None, "attention heads; null: the name's own", gt=0)
    drop_path: float = knob(0.0, "share of residual branches left out in training", sweep=Range(0, 0.5), ge=0, lt=1)
    positions: Literal["sincos", "learned"] = knob("sincos", "position embedding: fixed 2-D sines, or learned")
    pool: Literal["cls", "mean", "mean_norm"] = knob(
        "cls", "feature of a sample: the class token, or the mean of the patches, after the final norm or before it"
    )
    qk_norm: bool = knob(False, "a ViT's attention normalizes queries and keys, head by head")
    class_tokens: int = knob(1, "class tokens of a ViT; of several, the mean is the feature of a sample", gt=0, le=1000)
    init: Literal["objective", "backbone"] = knob(
        "objective", "initial weights: of the objective's authors, or MAE's for ViTs and timm's for others"
    )
    stem: Literal["imagenet", "small"] = knob("imagenet", "first layers of a CNN: timm's, or 3x3 for small images")
    weights: str | None = knob(
        None, "start from a timm state dict (.safetensors, .pth), or from timm's own: timm", min_length=1
    )

    @field_validator("name")
    @classmethod
    def _whole_folder(cls, name: str) -> str:
        folder = name.removeprefix(HUGGING_FACE)
        return HUGGING_FACE + _whole(folder) if is_config_folder(name) else name

    @field_validator("weights")
    @classmethod
    def _whole_path(cls, weights: str | None) -> str | None:
        return weights if weights is None or weights == "timm" else _whole(weights)

    @property
    def unknown(self) -> str | None:
        """Return a message for a name that neither timm nor the user has; None for any other."""
        from selfsup.families import unknown  # needs torch and timm, which reading a spec does without

        return unknown(self.name)

    @property
    def idle(self) -> dict[str, str]:
        """Return the knobs without effect on an encoder of that name, each with the reason."""
        from selfsup.families import idle

        return idle(self.name)

    @property
    def is_vit(self) -> bool:
        """Return whether it is a token encoder: a plain ViT, by the class of timm's model."""
        from selfsup.families import takes_tokens

        return takes_tokens(self.name)

    @property
    def patch(self) -> int | None:
        """Return the pixels a side of a token: patch_size, or the name's own; None for models that see images alone."""
        from selfsup.families import own_patch

        return self.patch_size or own_patch(self.name)

    @property
    def blocks(self) -> int | None:
        """Return the transformer blocks of a ViT: depth, or the name's own; None for others."""
        from selfsup.families import own_depth

        return self.depth or own_depth(self.name)

    @property
    def is_hiera(self) -> bool:
        """Return whether it is a Hiera, which MAE trains on some of its mask units alone."""
        from selfsup.families import is_hiera

        return is_hiera(self.name)


class Optim(Knobs):
    name: Literal["adamw", "sgd", "lars"] = knob("adamw", "optimizer", sweep=Choice("adamw", "sgd", "lars"))
    lr: float = knob(1.5e-4, "peak learning rate at lr_batch", symbol="η", sweep=Range(1e-5, 1e-2, log=True), gt=0)
    lr_rule: Literal["linear", "sqrt", "none"] = knob("linear", "how the learning rate grows with the batch")
    lr_batch: int = knob(256, "the batch at which lr holds as it stands", gt=0)
    weight_decay: float = knob(0.05, "decay of weight matrices", symbol="λ", sweep=Range(1e-6, 0.5, log=True), ge=0)
    decay_all: bool = knob(False, "biases and norms decay, too, not only weight matrices")
    weight_decay_end: float | None = knob(None, "where a cosine takes the decay; null: it stays", ge=0)
    betas: tuple[Share, Share] = knob((0.9, 0.95), "AdamW's averages of gradient and square", symbol="β₁, β₂")
    momentum: float = knob(0.9, "momentum of SGD and LARS", ge=0, lt=1)
    nesterov: bool = knob(False, "SGD looks ahead by its momentum")
    trust: float = knob(0.001, "LARS's ratio of a step to the weight's norm", gt=0)
    lars_form: LarsForm = knob("byol", "LARS as in BYOL, in SimCLR (momentum of steps), or LARC (adapts all weights)")
    warmup: Duration | None = knob(None, "linear rise of the learning rate at the start")
    warmup_lr: float = knob(0.0, "where that rise begins", ge=0)
    min_lr: float = knob(0.0, "where the cosine ends", ge=0)
    layer_decay: float = knob(
        1.0,
        "learning rate of a layer of timm's encoders, as a share of the next one's",
        sweep=Range(0.5, 1.0),
        gt=0,
        le=1,
    )
    drops: tuple[Share, ...] = knob(
        (), "shares of training after which the learning rate drops; none: a cosine instead"
    )
    drop_factor: float = knob(0.1, "what is left of the learning rate after each", gt=0, lt=1)
    clip_norm: float | None = knob(None, "longest gradient; null: any", gt=0)
    clip_each: float | None = knob(None, "longest gradient of any one weight; null: any", gt=0)

    def warmup_steps(self, *, batch: int, steps_per_epoch: int) -> int:
        return self.warmup.steps_of(batch=batch, steps_per_epoch=steps_per_epoch) if self.warmup else 0


class Train(Knobs):
    duration: Duration = knob(..., "how long, as {steps: n}, {epochs: n} or {samples: n}")
    batch: int = knob(256, "samples a step, over all workers", symbol="B", sweep=Choice(128, 256, 512, 1024), gt=0)
    precision: Literal["fp32", "bf16"] = knob("fp32", "number format of the forward pass; weights stay fp32")
    norm_groups: int = knob(1, "groups of samples that are batch-normalized apart, as per GPU; 1: all together", ge=1)
    accumulate: int = knob(1, "pieces a worker's batch is worked through in, to save memory; the loss sees all", ge=1)
    checkpoint_activations: bool = knob(
        False, "compute blocks once more for the gradient, to save memory; the digits stay", result=False
    )
    compile: bool = knob(False, "compile blocks by torch.compile: faster from the second step on, in other last digits")
    pack_crops: bool = knob(False, "crops of all sizes go through a ViT in one sequence; in other last digits")
    sharding: Literal["none", "fsdp"] = knob(
        "none", "fsdp: each worker keeps a part of weights, gradients and moments, to save memory", result=False
    )
    checkpoint_every: int = knob(500, "steps between checkpoints", result=False, ge=1)
    keep_checkpoints: int = knob(2, "checkpoints kept, the latest", result=False, ge=1)
    log_every: int = knob(10, "steps between records", result=False, ge=1)


class Stream(Knobs):
    """The order of samples; it does not depend on the number of workers."""

    lanes: int = knob(8, "parallel orders that a batch is drawn from; an upper bound on workers", ge=1, le=65536)
    chunk: int = knob(8, "consecutive samples read together", ge=1)
    mix: int = knob(16, "chunks shuffled together in a lane, for each sample that it gives to a step", ge=1)
    remainder: Literal["drop", "wrap"] = knob("drop", "an epoch's last, short batch: left out, or topped up")
    lacking: Lacking = knob(
        "fail",
        "samples without something that the objective reads: fail ends the plan, skip leaves them out, mask "
        "learns from what they have",
    )
    bad_share: float = knob(0.01, "share of undecodable samples that a run survives", result=False, ge=0, le=1)
    missing: Missing = knob("fail", "a shard that vanished or changed ends a run, or its samples are bad", result=False)
    cache: float = knob(16.0, "GiB of remote shards that each node keeps in $SELFSUP_CACHE", result=False, ge=0)
    feeder: Feeder | Literal["auto"] = knob(
        "auto", "makers of batches: the workers' own threads, or Ray tasks; auto: threads on one node", result=False
    )
    share: Literal["auto", "never"] = knob(
        "auto", "runs of a sweep that see the same crops: decoded once for all, or by each for itself", result=False
    )


class Embed(Knobs):
    crop: float = knob(0.875, "share of the shorter side kept, centered", gt=0, le=1)
    clips: int = knob(
        1,
        "clips of a video or recording, at equal distances from its first to its last, whose features are averaged",
        ge=1,
        le=100,
    )
    crops: Literal[1, 3] = knob(1, "squares of each clip, along the longer side of its frames, likewise")
    batch: int = knob(256, "samples at a time", result=False, ge=1)


class Paint(Knobs):
    """A decoder of frozen features, a small diffusion model, whose images show what these features know."""

    steps: int = knob(2000, "training steps of the decoder, of 64 images each", ge=1)
    size: int = knob(32, "pixels a side of the images that it paints", ge=8, multiple_of=8)
    width: int = knob(64, "channels of the decoder at its finest", ge=16, multiple_of=8)
    images: int = knob(10_000, "training images that it learns from at most, drawn alike for all runs", ge=1)


class InputShape(NamedTuple):
    """The shape of samples of an encoder. channels: values of a point. sizes: points along each axis of a sample.

    leading: points of a token along the first axes; along the others they are the backbone's patch size. in_groups:
    whether a token's points are a group of a cloud's, of as many; sizes count points as often as they are in one.
    vocabulary: values that a point can have, where an encoder of samples reads these of another modality, too; 0: any
    number.
    """

    channels: int
    sizes: tuple[int, ...]
    leading: tuple[int, ...] = ()
    in_groups: bool = False
    vocabulary: int = 0

    def sides(self, patch: int) -> tuple[int, ...]:
        """Return the points of a token along each axis, of a backbone's patch size."""
        return self.leading + (patch,) * (len(self.sizes) - len(self.leading))

    def undivided(self, patch: int) -> str:
        """Return why a sample does not divide into tokens of this patch size; "" where it does."""
        sides = self.sides(patch)
        if not any(size % side for size, side in zip(self.sizes, sides, strict=True)):
            return ""
        points = " x ".join(map(str, sides)) if self.leading else patch
        return f"samples of {' x '.join(map(str, self.sizes))} points do not divide into patches of {points}"


def image_shape(backbone: Backbone) -> InputShape:
    """Return the shape of RGB images of a backbone's own size."""
    return InputShape(3, (backbone.image_size, backbone.image_size))


class Setup(NamedTuple):
    """Settings that a method may check its knobs against.

    workers: among whom a batch is divided. sizes, leading: as of InputShape, of a modality. beside: the shape of each
    modality beside samples. towers: of these, where they are not as the backbone. begun: the modalities whose encoders
    begin with weights of a file or of an earlier training, as a plan knows.
    """

    backbone: Backbone
    train: Train
    workers: int
    sizes: tuple[int, ...]
    leading: tuple[int, ...] = ()
    modality: str = "image"
    beside: Mapping[str, InputShape] = MappingProxyType({})
    towers: Mapping[str, Backbone] = MappingProxyType({})
    begun: frozenset[str] = frozenset()

    @property
    def share(self) -> int:
        """Return the samples of a worker in a step."""
        return self.train.batch // self.workers

    @property
    def grid(self) -> tuple[int, ...] | None:
        """Return the tokens along each axis of a sample; None without patches, or where these do not divide it."""
        return _grid(InputShape(0, self.sizes, self.leading), self.backbone)

    def grid_of(self, name: str) -> tuple[int, ...] | None:
        """Return the same of what lies beside a sample; None, too, where nothing does."""
        shape = self.beside.get(name)
        return _grid(shape, self.towers.get(name, self.backbone)) if shape else None


def _grid(shape: InputShape, backbone: Backbone) -> tuple[int, ...] | None:
    patch = backbone.patch
    if not patch or shape.undivided(patch):
        return None
    return tuple(size // side for size, side in zip(shape.sizes, shape.sides(patch), strict=True))

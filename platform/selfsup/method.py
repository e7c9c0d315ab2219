"""The one interface that an objective implements; the folder `methods/` is the registry."""

import abc
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn

from selfsup import outside, registry
from selfsup.batch import Batch, Layout
from selfsup.encoder import Encoder
from selfsup.errors import SpecError
from selfsup.frozen import Frozen
from selfsup.knob import Knobs
from selfsup.parts.patch import Patch
from selfsup.parts.tokens import Tokens
from selfsup.sections import BASELINES, InputShape, Setup
from selfsup.views import Views

__all__ = ["Batch", "Method", "Out", "ParamOptions", "TrainInfo", "load", "names"]

METHODS = "selfsup.methods"  # the package, which is above this one
Kind = Literal["vit", "cnn"]
Lesson = Literal["codes", "features", "targets"]


class TrainInfo(NamedTuple):
    """The size of a training and of its samples, which an objective may depend on, and the teacher that its spec names.

    num_steps: of the optimizer. channels: of the data. sizes: points along each axis of a sample that the encoder is
    built for. mean, std: of each channel, by which samples are normalized; ImageNet's where no data is known.
    teacher: at any weights, on the meta device, in plans. beside: the shape of each modality beside samples.
    """

    num_samples: int
    num_classes: int
    num_steps: int
    steps_per_epoch: int
    channels: int = 3
    sizes: tuple[int, ...] = (224, 224)
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    teacher: Frozen | None = None
    beside: Mapping[str, InputShape] = MappingProxyType({})


class ParamOptions(NamedTuple):
    """Options of the optimizer for one weight, beside the schedule.

    lr_scale: factor on the schedule's learning rate. decay_scale: on its weight decay. constant_lr: keep the peak after
    warm-up. frozen_until: share of training before which the weight does not move. no_weight_decay: no decay, though
    its shape would have it. clip_group: weights of one group share the gradient norm that optim.clip_norm bounds; the
    group "" is not clipped.
    """

    lr_scale: float = 1.0
    constant_lr: bool = False
    frozen_until: float = 0.0
    no_weight_decay: bool = False
    clip_group: str = "all"
    decay_scale: float = 1.0


class Out(NamedTuple):
    """The output of `forward`. loss: (). log: scalars to record. aux: for `after_step`, samples first, to be joined."""

    loss: Tensor
    log: Mapping[str, Tensor] = {}
    aux: Mapping[str, Tensor] = {}


class Painting(NamedTuple):
    """A picture of samples of one kind: as the encoder sees them, as they are predicted, and as they are.

    kind: the modality, or map. each: (B, N, P), tokens of views[0]; or (B, C, *S) in the units of its modality; of a
    map (B, H, W), values that it has where it is known.
    """

    kind: str
    seen: Tensor
    painted: Tensor
    original: Tensor


class Method(nn.Module, abc.ABC):
    """An objective: encoders and heads, and the loss that trains them. `forward` samples nothing and writes nothing.

    What must survive a checkpoint is a parameter or a persistent buffer: teachers, queues, centers, temperatures.
    """

    paper: ClassVar[str]  # arXiv id
    Hyper: ClassVar[type[Knobs]]
    family: ClassVar[str]
    backbones: ClassVar[tuple[Kind, ...]] = ("vit", "cnn")  # those that it can train
    mask_units: ClassVar[bool] = False  # whether it trains a Hiera, too, on some of its mask units alone
    class_token: ClassVar[bool] = False  # whether it learns on a ViT's class token, whatever backbone.pool is
    needs_labels: ClassVar[bool] = False  # whether it learns from labels
    least_batch: ClassVar[int] = 1  # the smallest that its paper shows to work
    evaluated: ClassVar[str | None] = None  # attribute of the EMA teacher, if evaluation freezes that
    modalities: ClassVar[tuple[str, ...] | None] = ("image",)  # those that it can learn from; None: any
    beside: ClassVar[tuple[str, ...]] = ()  # those that it can learn from, too, where they lie beside its samples
    one_trunk: ClassVar[bool] = False  # whether its backbone reads these, too; else each has a tower
    masks_out: ClassVar[tuple[str, ...]] = ()  # kinds of data, and maps, that it reads and a sample may lack
    separable: ClassVar[bool] = False  # whether its loss is a mean of terms of one sample each
    packs: ClassVar[bool] = False  # whether its views are of several sizes, which a ViT may take in one sequence
    freezes: ClassVar[bool] = False  # whether weights of it wait for their first step: see ParamOptions.frozen_until
    learns_from: ClassVar[Lesson | None] = None  # what a spec's `teacher` may give it: see `lesson`
    num_codes: int = 0  # of a tokenizer

    @classmethod
    @abc.abstractmethod
    def views(cls, hyper: Any) -> Views:
        """Return the views that the stream must put in the batch, as data."""

    @classmethod
    def check(cls, hyper: Any, setup: Setup, info: TrainInfo | None = None) -> Iterator[SpecError]:  # noqa: ARG003
        """Yield conflicts between its knobs and other settings: errors with their paths, the likeliest first.

        info: None before the data is known.
        """
        yield from ()

    @classmethod
    def lesson(cls, hyper: Any) -> Lesson | None:  # noqa: ARG003
        """Return what it learns from a teacher with these knobs: codes, features, targets made of these; or nothing."""
        return cls.learns_from

    @staticmethod
    def initialize(trunk: Any) -> None:
        """Change the initial weights of a timm model in place; they are MAE's for ViTs, timm's for others.

        Weights that a spec gives are loaded after it.
        """

    @abc.abstractmethod
    def __init__(self, hyper: Any, encoders: Mapping[str, Any], info: TrainInfo) -> None:
        """Build heads and teachers. hyper: of the class `Hyper`. encoders: by modality, of the kinds in `backbones`."""
        super().__init__()
        self.encoders = nn.ModuleDict(encoders)

    @abc.abstractmethod
    def forward(self, batch: Batch) -> Out:
        """Return the loss: a pure function of parameters, buffers and batch."""

    @property
    def backbone(self) -> Any:
        """Return the encoder that a spec's backbone describes; those of what lies beside samples come after it."""
        return next(iter(self.encoders.values()))

    def encoder(self, modality: str) -> Encoder:
        """Return the encoder of a modality that evaluation freezes. Raises KeyError for one that it does not have."""
        trained = self.encoders[modality]
        frozen = getattr(self, self.evaluated) if self.evaluated else trained
        assert isinstance(frozen, Encoder)
        return frozen

    def joint(self, modality: str, view: Tokens | Tensor) -> Tensor:
        """-> (B, D): unit vectors in the space that its modalities share. Of objectives of several towers."""
        raise NotImplementedError

    def matched(self, view: Tokens | Tensor, words: Tokens) -> Tensor:
        """-> (B,): how likely captions are to be the samples' own. Of objectives that read both by one encoder."""
        raise NotImplementedError

    def reconstruct(self, batch: Batch) -> Tensor | None:  # noqa: ARG002
        """-> (B, N, P) or (B, C, *S): its prediction of every token, or of whole samples, in the units of views[0].

        None where it predicts no pixels.
        """
        return None

    def paintings(self, batch: Batch) -> tuple[Painting, ...]:
        """Return what pictures show: views[0], whose tokens that its mask leaves visible are painted as they are.

        An objective that predicts other kinds of data, too, adds those. Of objectives with `reconstruct`.
        """
        view, painted = batch.views[0], self.reconstruct(batch)
        assert painted is not None, "only a method that predicts pixels has a pictures stage"
        original = view.value.value if isinstance(view.value, Tokens) else view.value
        if view.mask is not None and painted.shape == original.shape:
            painted = torch.where(view.mask.removed[..., None], painted, original)
        return (Painting(view.modality, self.seen(batch), painted, original),)

    def seen(self, batch: Batch) -> Tensor:
        """-> (B, N, P) or (B, C, *S): views[0] as its encoder sees it, for pictures; tokens of its mask are zero.

        An objective that changes its input in another way shows that instead.
        """
        view = batch.views[0]
        if isinstance(view.value, Tensor):
            return view.value
        tokens = view.value.value
        return tokens if view.mask is None else tokens.masked_fill(view.mask.removed[..., None], 0.0)

    def codes(self, view: Tokens | Tensor) -> Tensor:
        """-> (B, N) int64: the code of each place of a view. Of tokenizers, which others learn from."""
        raise NotImplementedError

    def decoded(self, codes: Tensor) -> Tensor:
        """(B, N) int64 -> (B, N, P): the patches that a tokenizer paints of codes."""
        raise NotImplementedError

    def predict(self, view: Tokens | Tensor) -> Tensor:
        """-> (B, C): a number for each class, the largest for the likeliest. Of objectives that learn from labels.

        Or (B, T, D): what one that learns from maps says of each pixel, or object.
        """
        raise NotImplementedError

    @classmethod
    def decoded_maps(cls, hyper: Any) -> tuple[str, ...]:  # noqa: ARG003
        """Return the maps that `decoded_map` paints with these knobs, of depth and seg."""
        return ()

    def decoded_map(self, name: str, view: Tokens | Tensor) -> Tensor:
        """-> (B, S * S, 1): a map of `decoded_maps`, row by row, painted of samples alone: any depth, or classes"""
        raise NotImplementedError

    @classmethod
    def prepare(cls, hyper: Any, features: Tensor, sample: Tensor, num_samples: int, seed: int) -> Tensor:
        """(M, D), (M,) -> (num_samples, ...): targets made of the teacher's features, once before training.

        sample: the numbers of the training samples that could be read. Of objectives that learn from `targets`.
        """
        raise NotImplementedError

    def after_step(self, t: float, aux: Mapping[str, Tensor]) -> None:
        """Move teachers, queues and centers. t: in [0, 1), the share of training before this step."""

    def param_options(self, name: str, weight: Tensor) -> ParamOptions:  # noqa: ARG002
        """Return the options of the optimizer for this parameter."""
        return ParamOptions()


def layouts(method: Method, info: TrainInfo) -> dict[str, Layout]:
    """Return how what lies beside samples is cut: for its tower, or else for the backbone."""
    made = {}
    for name, shape in info.beside.items():
        own: Any = dict(method.encoders.items()).get(name)
        made[name] = Layout(shape.channels, own.patch if own else _shared_patch(method.backbone.patch, shape))
    return made


def _shared_patch(patch: Patch | None, shape: InputShape) -> Patch | None:
    return None if patch is None else shape.sides(patch if isinstance(patch, int) else patch[-1])


def names() -> list[str]:
    """Return the names of the shipped objectives, sorted."""
    return registry.modules(METHODS)


def is_known(name: str) -> bool:
    """Return whether it is the name of a shipped objective, or of a training of a dense head: dense.segmenter."""
    folder, _, module = name.rpartition(".")
    return module in registry.modules(f"{METHODS}.dense") if folder == "dense" else name in names()


def load(name: str) -> type[Method]:
    """Return the objective in `methods/<name>.py`, in a file of the user's, or `module:Class`.

    Raises SpecError where one from outside cannot be imported, or is no complete objective.
    """
    if outside.is_outside(name):
        return outside.load(name, Method, (*BASELINES, *names()))
    method: type[Method] = registry.only(METHODS, name, Method)
    return method

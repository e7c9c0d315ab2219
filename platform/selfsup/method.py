"""The one interface that an objective implements; the folder `methods/` is the registry."""

import abc
import importlib
import inspect
import pkgutil
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

from torch import Tensor, nn

import selfsup.methods
from selfsup.encoder import Encoder
from selfsup.knob import Knobs
from selfsup.parts.tokens import Tokens
from selfsup.pipelines.masks import Mask
from selfsup.pipelines.views import Views


class Batch(NamedTuple):
    """What the stream delivers, on the training device.

    views: one entry a view: Tokens for a token encoder, normalised images (B, C, H, W) for a pooled one.
    mask: which tokens of views[0] the encoder keeps; None where `Views.mask_ratio` asks for none.
    sample: (B,) the number of each sample in its data set.
    """

    views: tuple[Tokens | Tensor, ...]
    mask: Mask | None
    sample: Tensor


class Out(NamedTuple):
    """loss: () minimised. log: scalars to record. aux: for `after_step`, samples first: micro-batches are joined."""

    loss: Tensor
    log: Mapping[str, Tensor] = {}
    aux: Mapping[str, Tensor] = {}


class Method(nn.Module, abc.ABC):
    """An objective: encoders and heads, and the loss that trains them. `forward` samples nothing and writes nothing."""

    paper: ClassVar[str]  # arXiv id
    Hyper: ClassVar[type[Knobs]]
    needs_tokens: ClassVar[bool] = False

    @classmethod
    @abc.abstractmethod
    def views(cls, hyper: Any) -> Views:
        """What the stream must put in the batch, as data."""

    @abc.abstractmethod
    def __init__(self, hyper: Any, encoders: Mapping[str, Any]) -> None:
        """hyper: of the class `Hyper`. encoders: by modality; token encoders where `needs_tokens`."""
        super().__init__()

    @abc.abstractmethod
    def forward(self, batch: Batch) -> Out:
        """A pure function of parameters, buffers and batch."""

    @abc.abstractmethod
    def encoder(self, modality: str) -> Encoder:
        """What evaluation freezes."""

    def reconstruct(self, batch: Batch) -> Tensor | None:  # noqa: ARG002
        """(B, N, P) in the units of views[0]: what it paints for every token; None where it predicts no pixels."""
        return None

    def after_step(self, t: float, aux: Mapping[str, Tensor]) -> None:
        """t in [0, 1] is the share of training done: teachers, queues and centres move here."""


def names() -> list[str]:
    return sorted(module.name for module in pkgutil.iter_modules(selfsup.methods.__path__))


def load(name: str) -> type[Method]:
    """The objective in `methods/<name>.py`: the one concrete Method defined there."""
    module = importlib.import_module(f"selfsup.methods.{name}")
    found = [
        value
        for value in vars(module).values()
        if inspect.isclass(value) and issubclass(value, Method) and value.__module__ == module.__name__
    ]
    assert len(found) == 1, f"methods/{name}.py must define exactly one Method, not {len(found)}"
    return found[0]

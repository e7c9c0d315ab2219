"""Trunks from outside of timm: a module of the user's, or a model of transformers, as encoders read a timm model."""

import inspect
import math
from typing import Any

import torch
from timm.models import adapt_input_conv
from torch import Tensor, nn

from selfsup import weights
from selfsup.errors import SpecError
from selfsup.outside import HUGGING_FACE
from selfsup.outside_backbone import CHANNELS, GIVEN, config, factory
from selfsup.sections import Backbone, InputShape


class Trunk(nn.Module):
    """A module from outside, with the interface that an encoder reads of a timm model. head_hidden_size: D.

    unused: names of the weights that its features do not depend on; they are not trained.
    """

    model: Any

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.head_hidden_size, self.unused = 0, frozenset[str]()

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, D)"""
        features = self.forward_features(images)
        return features.mean(dim=(2, 3)) if features.ndim == 4 else features

    def forward_features(self, images: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, D, h, w), or (B, D) for a model without a map"""
        features = self.model(images)
        if not isinstance(features, Tensor) or features.ndim not in (2, 4):
            shape = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
            raise ValueError(f"it returns {shape}; expected (B, D) or (B, D, h, w)")
        return features

    def renamed(self, state: weights.State) -> weights.State:
        """Return the weights of a file under the names that they have in the model."""
        return state


class HuggingFaceTrunk(Trunk):
    """A vision model of transformers. pool: what stands for an image where it yields tokens.

    Without a class token that is the mean, whatever `pool` says. The pooler of a model of tokens is left out.
    """

    def __init__(self, model: Any, pool: str) -> None:
        super().__init__(model)
        self.pool, parameters = pool, inspect.signature(model.forward).parameters
        self._options = {"interpolate_pos_encoding": True} if "interpolate_pos_encoding" in parameters else {}

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, D)"""
        output = self.model(pixel_values=images, **self._options)
        hidden: Tensor = output.last_hidden_state
        if hidden.ndim == 4:
            pooled: Tensor | None = getattr(output, "pooler_output", None)
            return hidden.mean(dim=(2, 3)) if pooled is None else pooled.flatten(1)
        prefix = self._prefix(hidden, images)
        return hidden[:, 0] if prefix and self.pool == "cls" else hidden[:, prefix:].mean(dim=1)

    def forward_features(self, images: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, D, h, w)"""
        hidden: Tensor = self.model(pixel_values=images, **self._options).last_hidden_state
        if hidden.ndim == 4:
            return hidden
        places = hidden[:, self._prefix(hidden, images) :].mT
        side = math.isqrt(places.shape[2])
        return places.reshape(*places.shape[:2], side, side)

    def renamed(self, state: weights.State) -> weights.State:
        """Return the weights of a file, which may be of another version or have a head, under the model's names."""
        if self.model.state_dict().keys() - self.unused <= state.keys():
            return state
        options = {"state_dict": dict(state), "ignore_mismatched_sizes": True, "output_loading_info": True}
        loaded, report = type(self.model).from_pretrained(None, config=self.model.config, **options)
        known = {name: value for name, value in loaded.state_dict().items() if name not in report["missing_keys"]}
        return known | {name: torch.empty(there, device="meta") for name, there, _ in report["mismatched_keys"]}

    def _prefix(self, hidden: Tensor, images: Tensor) -> int:
        """Return how many class and register tokens stand before the places of a square image."""
        tokens, patch = hidden.shape[1], getattr(self.model.config, "patch_size", None)
        places = (images.shape[-1] // patch) ** 2 if isinstance(patch, int) else tokens + 1
        return tokens - (places if places <= tokens else math.isqrt(tokens) ** 2)


def create(backbone: Backbone, shape: InputShape) -> Trunk:
    """Return the trunk at its initial weights or with `backbone.weights`, on torch's default device.

    shape: of the samples that it is to see.

    Raises SpecError for one that cannot be built or takes no images, and for weights that do not fit.
    """
    device = torch.get_default_device()
    with torch.device("cpu"), torch.inference_mode(False), torch.enable_grad():  # no constructor must work on "meta"
        trunk = _built(backbone, shape.channels)
        _probe(trunk, backbone, shape)
        if backbone.weights:
            _fill(trunk, backbone, shape.channels)
    return trunk.to(device)


def _built(backbone: Backbone, channels: int) -> Trunk:
    try:
        if not backbone.name.startswith(HUGGING_FACE):
            return Trunk(factory(backbone.name)(**_arguments(backbone, channels)))
        return _hugging_face(backbone, channels)
    except SpecError:
        raise
    except Exception as error:  # whatever the user's code and transformers raise
        raise SpecError(f"{backbone.name} cannot be built: {_reason(error)}", "backbone.name") from error


def _hugging_face(backbone: Backbone, channels: int) -> Trunk:
    """Build a model of transformers from a config with channels and settings that it has a place for."""
    settings = config(backbone.name)
    from transformers import AutoModel
    from transformers.utils import logging

    logging.set_verbosity_error()  # type: ignore[no-untyped-call]  # what is wrong, an error of ours says
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    asked = {"image_size": backbone.image_size, "num_channels": channels, "drop_path_rate": backbone.drop_path}
    for name, value in asked.items():
        if hasattr(settings, name):
            setattr(settings, name, value)
    model = AutoModel.from_config(settings).float()  # type: ignore[no-untyped-call]
    return HuggingFaceTrunk(model, backbone.pool)


def _fill(trunk: Trunk, backbone: Backbone, channels: int) -> None:
    """Load the given weights. Those that the features do not depend on may be missing, or others."""
    own = trunk.model.state_dict()
    state = trunk.renamed(_of_channels(weights.given(backbone, trunk.model), own, channels))
    weights.put({**state, **{name: own[name] for name in trunk.unused}}, trunk.model, backbone)


def _of_channels(state: weights.State, own: weights.State, channels: int) -> weights.State:
    """Return weights with convolutions of RGB that fit none of the model's own made into such of its channels."""
    shapes = {tuple(value.shape) for value in own.values()}
    rgb = [name for name, value in state.items() if value.ndim == 4 and value.shape[1] == 3]
    unfit = [name for name in rgb if tuple(state[name].shape) not in shapes]
    adapted = {name: adapt_input_conv(channels, state[name]) for name in unfit}
    return {**state, **{name: value for name, value in adapted.items() if tuple(value.shape) in shapes}}


def _probe(trunk: Trunk, backbone: Backbone, shape: InputShape) -> None:
    """Set the width of a trunk, and freeze what its features do not depend on, by one image of zeros."""
    weight = dict(trunk.model.named_parameters())
    trained = {name: value for name, value in weight.items() if value.requires_grad}
    was_training = trunk.training
    try:
        with torch.random.fork_rng(devices=[]):
            before = torch.get_rng_state()
            features = trunk.eval()(torch.zeros(1, shape.channels, *shape.sizes))
            drawn = not torch.get_rng_state().equal(before)
        grads = torch.autograd.grad(features.sum(), list(trained.values()), allow_unused=True)
    except Exception as error:  # whatever the module raises
        channels = f" and {shape.channels} channels" * (shape.channels != 3)
        message = f"{backbone.name} cannot see images of {backbone.image_size} pixels{channels}: {_reason(error)}"
        raise SpecError(message, "backbone.name", "backbone.image_size") from error
    if drawn:
        raise SpecError(f"the features of {backbone.name} depend on random numbers that it draws", "backbone.name")
    unused = {name for (name, value), grad in zip(trained.items(), grads, strict=True) if grad is None}
    for name in unused:
        weight[name].requires_grad_(False)
    trunk.train(was_training)
    trunk.head_hidden_size, trunk.unused = features.shape[1], frozenset(unused)


def _arguments(backbone: Backbone, channels: int) -> dict[str, Any]:
    """Return the settings that a callable has parameters for, without those that are left at null."""
    asked = inspect.signature(factory(backbone.name)).parameters
    given = {name: getattr(backbone, name) for name in GIVEN} | {CHANNELS: channels}
    return {name: value for name, value in given.items() if name in asked and value is not None}


def _reason(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__

"""Encoders on disk: safetensors, whose metadata say which backbone it is and what samples it is built for.

save_encoder(encoder, backbone, path); restore_encoder(path)
"""

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from pydantic import TypeAdapter
from torch import Tensor

from selfsup import tensors
from selfsup.encoder import Encoder, build
from selfsup.errors import CheckpointError, SpecError
from selfsup.knob import as_dict
from selfsup.outside_backbone import portable
from selfsup.sections import Backbone, InputShape, image_shape

SHAPE = TypeAdapter(InputShape)


class SavedEncoder(NamedTuple):
    """A file of `save_encoder`. shape: of the samples that it is built for. metadata: all that the file says."""

    backbone: Backbone
    shape: InputShape
    state: dict[str, Tensor]
    metadata: Mapping[str, str]


def save_encoder(
    encoder: Encoder,
    backbone: Backbone,
    path: Path,
    shape: InputShape | None = None,
    notes: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Write the weights of an encoder's trunk as `save_weights` does.

    shape: None for RGB images of the backbone's own size.
    """
    save_weights(encoder.trunk.state_dict(), backbone, path, shape or image_shape(backbone), notes)


def save_weights(
    weights: Mapping[str, Tensor], backbone: Backbone, path: Path, shape: InputShape, notes: Mapping[str, str]
) -> None:
    """Write the state of a trunk as safetensors, with backbone and shape, of samples, in its metadata.

    notes: more for the metadata.
    """
    backbone = backbone.model_copy(update={"name": portable(backbone.name)})
    metadata = {"backbone": json.dumps(as_dict(backbone)), "shape": json.dumps(_shortest(shape))}
    tensors.save(weights, path, {**notes, **metadata})


def _shortest(shape: InputShape) -> tuple[Any, ...]:
    """Return a shape without what is at its default at the end."""
    return shape if shape.in_groups else shape[:3] if shape.leading else shape[:2]


def restore_encoder(path: Path | str) -> Encoder:
    """Return the encoder in a file of `save_encoder`. Raises CheckpointError for any other file, or a damaged one."""
    return restored(read_encoder(path), path)


def restored(saved: SavedEncoder, path: Path | str) -> Encoder:
    """Return the encoder of what was read from a file. Raises CheckpointError where it cannot be made."""
    try:
        encoder = build(saved.backbone.model_copy(update={"weights": None}), shape=saved.shape)
        encoder.trunk.load_state_dict(saved.state)
    except (SpecError, RuntimeError) as error:
        raise CheckpointError(f"{path}: not an encoder that this version can make: {error}") from error
    return encoder


def read_encoder(path: Path | str) -> SavedEncoder:
    """Return what a file of `save_encoder` holds. Raises CheckpointError for any other file, or a damaged one."""
    state, metadata = tensors.load(path)
    if "backbone" not in metadata:
        raise CheckpointError(f"{path}: does not say which backbone it holds; expected a file that selfsup wrote")
    try:
        backbone = Backbone.model_validate_json(metadata["backbone"])
        shape = SHAPE.validate_json(metadata["shape"]) if "shape" in metadata else image_shape(backbone)
        return SavedEncoder(backbone, shape, state, metadata)
    except ValueError as error:
        raise CheckpointError(f"{path}: the backbone that it names is none of this version: {error}") from error

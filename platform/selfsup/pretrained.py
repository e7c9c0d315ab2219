"""Trained encoders as they are used: samples in, features out, prepared as evaluations prepare them.

encoder = load_encoder("mae.safetensors")
features = encoder(images)      # (B, C, H, W) of any size, uint8 or floats in [0, 1] -> (B, D)
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from selfsup import modality
from selfsup.encoder import Encoder
from selfsup.errors import CheckpointError, SpecError
from selfsup.knob import Knobs
from selfsup.parts.tokens import Tokens
from selfsup.saved import SavedEncoder, read_encoder, restored
from selfsup.sections import Embed
from selfsup.views import ViewSpec

MODALITY, STATS, CROP, INPUT = "modality", "stats", "crop", "input"  # keys of the metadata


class PretrainedEncoder(nn.Module):
    """An encoder that prepares what it is given: crop, size, mean and deviation are those of its evaluation.

    view: the part of a sample that it sees, and its size. stats: how values are read and normalized: stats.mean,
    stats.std. C: channels of the data, D: `dim`.
    """

    def __init__(self, encoder: Encoder, view: ViewSpec, stats: Any) -> None:
        super().__init__()
        self.encoder, self.view, self.stats = encoder, view, stats
        self._modality = modality.load(view.modality)

    @property
    def dim(self) -> int:
        return self.encoder.dim

    @property
    def num_layers(self) -> int:
        """Return after how many layers there are features: blocks of a ViT, resolutions of a CNN."""
        return self.encoder.num_layers

    def forward(self, samples: Tensor) -> Tensor:
        """(B, C, *S), such as images of any size, uint8 or floats in [0, 1] -> (B, D)"""
        return self.encoder.pooled(self.prepare(samples))

    def spatial(self, samples: Tensor) -> Tensor:
        """(B, C, *S) -> (B, D, *places)"""
        return self.encoder.spatial(self.prepare(samples))

    def layers(self, samples: Tensor, numbers: Iterable[int]) -> dict[int, Tensor]:
        """(B, C, *S) -> (B, D_i) after each of these layers, by its number; 1 is the first, -1 the last.

        Raises SpecError for one that there is not.
        """
        return self.encoder.layers(self.prepare(samples), self.numbered(numbers))

    def numbered(self, numbers: Iterable[int]) -> list[int]:
        """Return numbers of layers as counted from 1, sorted. Raises SpecError for one that there is not."""
        last, counted = self.num_layers, set()
        for number in numbers:
            if not 1 <= abs(number) <= last:
                raise SpecError(f"layer {number}: expected 1 to {last}, or -1 for the last, -2 for the one before ...")
            counted.add(number if number > 0 else last + 1 + number)
        return sorted(counted)

    def prepare(self, samples: Tensor) -> Tokens | Tensor:
        """(B, C, *S) -> what the encoder sees"""
        device = next(self.encoder.parameters()).device
        return self.view_of(self._modality.fit(samples.to(device), self.view, self.stats))

    def view_of(self, raw: Tensor, draws: Tensor | None = None) -> Tokens | Tensor:
        """(B, *S, C), the view as it is loaded -> what the encoder sees. draws: of a view that is augmented."""
        return self._modality.seen(self.normalized(raw, draws), self.encoder.patch)

    def normalized(self, raw: Tensor, draws: Tensor | None = None) -> Tensor:
        """(B, *S, C), the view as it is loaded -> (B, C, *S)"""
        values = self._modality.augment(raw, self.view, torch.empty(raw.shape[0], 0) if draws is None else draws)
        return self._modality.normalize(values, self.view, self.stats)


def load_encoder(path: Path | str, *, crop: float | None = None) -> PretrainedEncoder:
    """Return a trained encoder, for inference until `.train()` is called.

    path: an `encoder.safetensors` of a run, or of `selfsup export --to torch`. crop: share of the shorter side that it
    sees, in the middle; None: what the run's evaluations saw, 0.875 unless its spec says so; 1: nothing is cut.
    Raises CheckpointError for any other file, or a damaged one.
    """
    return assembled(read_encoder(path), path, crop)


def assembled(saved: SavedEncoder, path: Path | str, crop: float | None = None) -> PretrainedEncoder:
    """Return the encoder of what was read from a file. crop and errors as of `load_encoder`."""
    kind, stats, own = preparation(saved.metadata, path)
    crop = own if crop is None else crop
    if not 0 < crop <= 1:
        raise SpecError(f"crop: expected a share above 0, at most 1, not {crop:g}")
    knobs = modality.load(kind).Input.model_validate_json(saved.metadata.get(INPUT, "{}"))
    view = modality.load(kind).whole(saved.shape.sizes, crop, knobs)
    return PretrainedEncoder(restored(saved, path), view, stats).eval()


def notes(kind: str, stats: Any, crop: float | None = None, knobs: Knobs | None = None) -> dict[str, str]:
    """Return what the metadata of an encoder say of its samples. kind: the modality. knobs: its part of `input`."""
    own = {INPUT: knobs.model_dump_json()} if knobs and dict(knobs) else {}
    return {MODALITY: kind, STATS: stats.model_dump_json()} | ({CROP: str(crop)} if crop else {}) | own


def preparation(metadata: Mapping[str, str], path: Path | str) -> tuple[str, Any, float]:
    """Return modality, stats and crop from the metadata of an encoder. Raises CheckpointError as `load_encoder`."""
    if STATS not in metadata:
        raise CheckpointError(f"{path}: does not say its mean and deviation: export it again, from its run")
    try:
        kind = metadata[MODALITY]
        stats = modality.load(kind).Stats.model_validate_json(metadata[STATS])
        return kind, stats, float(metadata.get(CROP, Embed().crop))
    except (KeyError, ImportError, ValueError) as error:
        raise CheckpointError(f"{path}: its samples are none of this version: {error}") from error

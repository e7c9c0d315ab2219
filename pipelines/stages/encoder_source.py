"""The encoder of embed stages, and the map from blocks of samples to blocks of their features."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from selfsup import attention, encoder, saved
from selfsup.feature_choice import OWN, FeatureChoice
from selfsup.pipelines.dense import places_side
from selfsup.pipelines.stages import raw_values
from selfsup.pipelines.stages.classify import HeadSource
from selfsup.pipelines.stages.paired import MatchSource, PairSource, apart
from selfsup.pretrained import PretrainedEncoder
from selfsup.sections import Backbone, InputShape
from selfsup.views import ViewSpec

Columns = dict[str, NDArray[Any]]
Embed = Callable[..., Tensor]  # loaded views, and draws where they are augmented -> features


@dataclass(frozen=True)
class EncoderSource:
    """The encoder of an embed stage: none for raw samples, one at its initial weights, or a trained one.

    shape: of the samples that it is built for. view: of each sample. stats: by which samples are normalized. weights:
    file of a trained encoder. reads: the feature; raw samples have one, and one a token.
    """

    method: str
    backbone: Backbone
    seed: int
    shape: InputShape
    view: ViewSpec
    stats: Any
    weights: Path | None
    reads: FeatureChoice = OWN

    def model(self) -> Embed:
        """Return the function of loaded views, (B, *S, C), to features, (B, D), or (B, T, D) where tokens are read."""
        if self.method == "pixels":
            return self._raw()
        device = "cuda" if torch.cuda.is_available() else "cpu"
        model = self.pretrained().to(device).eval()
        trunk = model.encoder

        def embed(raw: Tensor, draws: Tensor | None = None) -> Tensor:
            return _feature(trunk, model.view_of(raw.to(device), draws), self.reads)

        return embed

    def pretrained(self) -> PretrainedEncoder:
        """Return the encoder with what it is given, on the CPU."""
        if self.weights:
            return PretrainedEncoder(saved.restore_encoder(self.weights), self.view, self.stats)
        torch.manual_seed(self.seed)
        return PretrainedEncoder(encoder.build(self.backbone, shape=self.shape), self.view, self.stats)

    def _raw(self) -> Embed:
        values: Callable[[Tensor], Tensor] = raw_values.places if self.reads.kind == "tokens" else raw_values.pooled
        if self.reads.squashed:
            values = partial(raw_values.squares, side=places_side(self.backbone))
        return lambda raw, *_: values(raw)


def _feature(trunk: encoder.Encoder, view: Any, reads: FeatureChoice) -> Tensor:
    """-> (B, D), or (B, T, D)"""
    if reads.kind == "tokens":
        return _places(trunk, view, reads.blocks).flatten(2).mT
    if not reads.is_of_tokens:
        return trunk.features(view, reads.kind, reads.blocks)
    assert isinstance(trunk, encoder.TokenEncoder), "plans refuse others"
    return attention.keys(trunk, view) if reads.kind == "keys" else attention.class_attention(trunk, view)


def _places(trunk: encoder.Encoder, view: Any, blocks: int) -> Tensor:
    """-> (B, D, *grid): the mean over the last blocks"""
    if blocks == 1:
        return trunk.spatial(view)
    assert isinstance(trunk, encoder.TokenEncoder), "plans refuse others"
    numbers = range(trunk.num_layers - blocks + 1, trunk.num_layers + 1)
    return torch.stack([*trunk.spatial_layers(view, numbers).values()]).mean(0)


def joined(features: Tensor, parts: int, *, tokens: bool) -> Tensor:
    """(B * parts, ...) -> (B, ...), their means; of tokens, (B * parts, T, D) -> (B, parts * T, D), all of them"""
    apart = features.view(-1, parts, *features.shape[1:])
    return apart.flatten(1, 2) if tokens else apart.mean(dim=1)


Source = EncoderSource | HeadSource | PairSource | MatchSource


@lru_cache(maxsize=1)
def _loaded(source: Source) -> Embed:
    """Return the model of a source, which a task's process keeps for its next block."""
    return source.model()


class Encode:
    """A map from blocks of images to blocks of features: a task on CPUs, an actor where there is an accelerator."""

    def __init__(self, source: Source) -> None:
        self._source = source

    def warm(self) -> None:
        """Load the model, which threads then share."""
        _loaded(self._source)

    @staticmethod
    def forget() -> None:
        """Free the model that this process keeps."""
        _loaded.cache_clear()

    @torch.inference_mode()
    def __call__(self, batch: Columns) -> pa.Table:
        parts = self._source.view.num_parts
        raw = apart(torch.from_numpy(np.array(batch.pop("sample"))), self._source.view)
        more = [torch.from_numpy(np.array(batch.pop(name))) for name in ("draws", "beside") if name in batch]
        tokens = isinstance(self._source, EncoderSource) and self._source.reads.is_of_tokens
        feature = joined(_loaded(self._source)(raw, *more).float(), parts, tokens=tokens).cpu().numpy()
        shape = feature.shape[1:]
        column = pa.FixedSizeListArray.from_arrays(pa.array(feature.ravel()), math.prod(shape))
        length = {"tokens": np.full(len(feature), shape[0])} if len(shape) > 1 else {}
        return pa.table({name: pa.array(value) for name, value in (batch | length).items()} | {"feature": column})

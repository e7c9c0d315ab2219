"""Features of any samples by a trained encoder, on Ray, as one Parquet file in the order of the samples."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray
import ray.data
import torch
from numpy.typing import NDArray

from selfsup import modality
from selfsup.errors import DataError, SpecError
from selfsup.modality import DecodeError, Raw
from selfsup.pipelines.cluster.ray_context import ray_context
from selfsup.pipelines.data import sources
from selfsup.pipelines.data.shards import Progress, no_progress
from selfsup.pipelines.data.sources import NamedSample, SampleSource
from selfsup.pipelines.stages.encoding import encoded
from selfsup.pipelines.stages.filled import READ_BATCH
from selfsup.pipelines.trained import TrainedEncoder, find
from selfsup.pretrained import PretrainedEncoder, assembled
from selfsup.views import ViewSpec
from selfsup.whole import whole

BLOCK = 1024  # samples of a task
FEATURE = "feature"  # the column; of a layer that was asked for, feature_6
Columns = dict[str, NDArray[Any]]


class EmbedResult(NamedTuple):
    """A summary of the rows written. features: column -> numbers a sample. unreadable: name of a sample -> reason."""

    samples: int
    labelled: int
    classes: int
    features: Mapping[str, int]
    unreadable: Mapping[str, str]
    left_out: Mapping[str, int]


@dataclass(frozen=True)
class LayerRequest:
    """Features that are asked for. numbers: of layers, counted from 1; none: the encoder's own features."""

    encoder: TrainedEncoder
    crop: float | None
    numbers: tuple[int, ...]

    def columns(self, model: PretrainedEncoder, raw: torch.Tensor) -> dict[str, torch.Tensor]:
        """(B, *S, C) -> (B, D) by the name of its column"""
        view = model.view_of(raw)
        if not self.numbers:
            return {FEATURE: model.encoder.pooled(view)}
        return {f"{FEATURE}_{number}": value for number, value in model.encoder.layers(view, self.numbers).items()}


@lru_cache(maxsize=1)
def _model(encoder: TrainedEncoder, crop: float | None) -> PretrainedEncoder:
    """Return an encoder, which a task process keeps for its next block."""
    return encoder.load(crop).to("cuda" if torch.cuda.is_available() else "cpu")


class SampleEncoder:
    """A block of samples -> a block of features."""

    def __init__(self, request: LayerRequest) -> None:
        self._request = request

    @torch.inference_mode()
    def __call__(self, batch: Columns) -> pa.Table:
        model = _model(self._request.encoder, self._request.crop)
        raw = torch.from_numpy(np.array(batch.pop("sample")))
        features = self._request.columns(model, raw.to(next(model.parameters()).device))
        columns = {name: _lists(value.float().cpu().numpy()) for name, value in features.items()}
        return pa.table({name: pa.array(value) for name, value in batch.items()} | columns)


def _lists(values: NDArray[np.float32]) -> pa.FixedSizeListArray:
    return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])


class SampleLoader:
    """Numbers of samples -> each one's view, name and label; in place of an unreadable one, zeros and the reason."""

    def __init__(self, source: SampleSource, view: ViewSpec, reading: Any) -> None:
        self._source, self._view, self._reading = source, view, reading
        self._kind = view.modality

    def __call__(self, batch: Columns) -> Columns:
        samples = self._source.read(batch["id"])
        loaded = [self._load(sample) for sample in samples]
        shape, dtype = modality.ready(self._kind).raw(self._view, self._reading)
        views = [np.zeros(shape, dtype) if isinstance(view, str) else view for view in loaded]
        return {
            "id": batch["id"],
            "sample": np.stack(views),
            "name": np.array([sample.name for sample in samples], object),
            "label": np.array([sample.label for sample in samples], object),
            "problem": np.array([view if isinstance(view, str) else "" for view in loaded], object),
        }

    def _load(self, sample: NamedSample) -> Raw | str:
        kind = modality.load(self._kind)
        try:
            extents = np.array([kind.extent(sample.data, self._reading)])
            boxes = kind.place(self._view, extents, np.empty((1, 0)))
            return kind.load(sample.data, boxes, [self._view], self._reading)[0]
        except DecodeError as error:
            return str(error) if len(sample.data) else "an empty file, or one that cannot be opened"


def embed(
    home: Path,
    source: str,
    place: str,
    out: Path,
    *,
    layers: str = "",
    crop: float | None = None,
    batch: int = 256,
    progress: Progress = no_progress,
) -> EmbedResult:
    """Write the features of all samples of a place to `out`, by the encoder of a run or a file; whole or not at all.

    layers: such as 4,8,-1, or all. Columns: sample, label (null without one), and feature, or feature_4 ... of each
    layer. Raises CheckpointError, DataError or SpecError where there is no encoder, no sample, no such layer.
    """
    if not out.absolute().parent.is_dir():
        raise SpecError(f"{out}: there is no folder {out.parent} to write to")
    encoder = find(home, source)
    saved = encoder.saved
    model = assembled(saved, encoder.path, crop)
    request = LayerRequest(encoder, crop, _numbers(layers, model))
    samples, left_out = sources.find(place, home, model.view.modality)
    reading = samples.reading or model.stats
    if reading.channels != model.stats.channels:
        raise DataError(f"{place}: {reading.channels} channels; {source} was trained on {model.stats.channels}")
    described = json.dumps({"encoder": encoder.name, "samples": place, "layers": layers, **saved.metadata})
    with nullcontext() if ray.is_initialized() else ray_context(), whole(out) as part:
        blocks = _blocks(samples, SampleLoader(samples, model.view, reading), request, batch)
        return _written(part, blocks, len(samples), described, progress)._replace(left_out=left_out)


def _numbers(layers: str, model: PretrainedEncoder) -> tuple[int, ...]:
    """Return the numbers of layers that are asked for, counted from 1. Raises SpecError."""
    if layers == "all":
        return tuple(range(1, model.num_layers + 1))
    try:
        asked = [int(number) for number in layers.split(",") if number.strip()]
    except ValueError:
        raise SpecError(f"--layers {layers}: expected numbers such as 4,8,-1, or all") from None
    return tuple(model.numbered(asked))


def _blocks(samples: SampleSource, load: SampleLoader, request: LayerRequest, batch: int) -> Any:
    """Return an iterator over tables of features, in the order of the samples."""
    size = len(samples)
    numbers = ray.data.range(size, override_num_blocks=-(-size // BLOCK))
    loaded = numbers.map_batches(load, batch_size=min(BLOCK, READ_BATCH), num_cpus=1)
    features = encoded(loaded, SampleEncoder, request, batch=batch, cpus=1)
    features.context.execution_options.preserve_order = True
    return features.iter_batches(batch_size=None, batch_format="pyarrow")


def _written(path: Path, blocks: Any, total: int, described: str, progress: Progress) -> EmbedResult:
    """Write tables of features as they come. Raises DataError where no sample can be read."""
    done, labels, unreadable, writer, features = 0, Counter[str](), dict[str, str](), None, dict[str, int]()
    try:
        for block in blocks:
            problems = block["problem"].to_pylist()
            unreadable |= {name: why for name, why in zip(block["name"].to_pylist(), problems, strict=True) if why}
            table = _table(block.filter(pa.array([not why for why in problems])), described)
            writer = writer or pq.ParquetWriter(path, table.schema)
            writer.write_table(table)
            labels.update(label for label in table["label"].to_pylist() if label is not None)
            features = {field.name: field.type.list_size for field in table.schema if field.name.startswith(FEATURE)}
            done += len(block)
            progress(done, total)
    finally:
        if writer:
            writer.close()
    if len(unreadable) == total:
        name, why = next(iter(unreadable.items()))
        raise DataError(f"none of {total} samples can be read, such as {name}: {why}")
    return EmbedResult(total - len(unreadable), labels.total(), len(labels), features, unreadable, {})


def _table(block: pa.Table, described: str) -> pa.Table:
    """Return the columns of the file. described: what made it, as JSON for the file's metadata."""
    names: Sequence[str] = [name for name in block.column_names if name.startswith(FEATURE)]
    texts = {"sample": block["name"].cast(pa.string()), "label": block["label"].cast(pa.string())}
    table = pa.table(texts | {name: block[name] for name in names})
    return table.replace_schema_metadata({"selfsup": described})

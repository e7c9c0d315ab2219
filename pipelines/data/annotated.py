"""Packing of samples with dense annotation into WebDataset shards: maps beside an image, see `annotation`, and more."""

import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from selfsup.errors import DataError
from selfsup.pipelines.data import shards, storage, tars, urls
from selfsup.pipelines.data.manifest import Manifest
from selfsup.pipelines.data.pack import clear
from selfsup.pipelines.data.shards import no_remark

MARK = "annotated"


class AnnotatedSample(NamedTuple):
    """A sample. members: suffix -> data; its image is one of them. label: its class, by number."""

    key: str
    members: Mapping[str, bytes]
    label: int | None = None


def pack_annotated(
    samples: Iterable[AnnotatedSample], out: str | Path, *, classes: Sequence[str] = (), shard_size: int = 1000
) -> Manifest:
    """Pack samples into shards of `shard_size` of them and a manifest; a shard at a time is in memory.

    out: a folder or URL. classes: the names of labels. Raises DataError without samples, and where `out` holds shards
    that were not packed here.
    """
    home, rest = urls.absolute(str(out)), iter(samples)
    outdated = clear(home, classes).keys()
    scans: list[tars.ShardScan] = []
    while data := tars.write_tar(_members(islice(rest, shard_size)), mark=MARK):
        name = f"{len(scans):06d}.tar"
        storage.write(home, name, data)
        scans.append(tars.scan(data, name=name))
    if not scans:
        raise DataError(f"{out}: nothing to pack into it: there is no sample")
    for name in outdated - {scan.name for scan in scans}:
        storage.remove(home, name)
    return shards.assemble(home, home, scans, no_remark)


def png(values: NDArray[Any]) -> bytes:
    """(H, W), of 8 or 16 bits -> PNG"""
    sink = io.BytesIO()
    Image.fromarray(values).save(sink, "PNG")
    return sink.getvalue()


def millimeters(depth: NDArray[np.floating]) -> NDArray[np.uint16]:
    """(H, W), in meters, 0 where unknown -> (H, W): those above 65 m count as unknown"""
    values = np.round(1000 * depth)
    return np.where(values < 2**16, values, 0).astype(np.uint16)


def _members(samples: Iterator[AnnotatedSample]) -> Iterator[tuple[str, str, bytes, int | None]]:
    for sample in samples:
        for number, (suffix, data) in enumerate(sample.members.items()):
            yield sample.key, suffix, data, None if number else sample.label

"""One WebDataset shard: a tar in which consecutive members with the same key are a sample.

A member's key is its path up to the first dot of the file name; the rest says what it is. `tarfile` takes a tar
that is cut between two members for a whole one, so the end-of-archive blocks are looked for here.
"""

import hashlib
import io
import json
import tarfile
from collections.abc import Iterable, Iterator
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from selfsup.errors import DataError

IMAGES = ("jpg", "jpeg", "png", "webp")
MARK = "selfsup.mark"  # in the tar's global header, which readers skip
BLOCK = 512
_AGAIN = "fetch it again or write it anew"
_SCAN = pa.schema(
    {"key": pa.string(), "offset": pa.int64(), "size": pa.int32(), "format": pa.string(), "label": pa.string()}
)


class Scan(NamedTuple):
    """What a shard holds. samples: key, offset, size, format, and label as text (a class's number or its name)."""

    name: str
    size: int
    checksum: str
    fields: frozenset[str]
    samples: pa.Table


class _Sample(NamedTuple):
    key: str
    members: dict[str, tarfile.TarInfo]


def write(path: Path, samples: Iterable[tuple[str, bytes, int | None]], *, mark: str) -> int:
    """(key, JPEG, label) -> a tar, whole or not at all, none for no samples; their number. Same samples, same bytes."""
    part, number = path.with_suffix(".part"), 0
    with tarfile.open(part, "w", format=tarfile.PAX_FORMAT, pax_headers={MARK: mark}) as tar:
        for number, (key, data, label) in enumerate(samples, start=1):  # noqa: B007 (it is the count in the end)
            _add(tar, f"{key}.jpg", data)
            if label is not None:
                _add(tar, f"{key}.cls", str(label).encode())
    if number:
        part.replace(path)
    else:
        part.unlink()
    return number


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)  # as made: nobody's, of 1970
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


def mark(path: Path) -> str | None:
    """What `write` was told; None for a tar that it did not write."""
    try:
        with tarfile.open(path, "r:") as tar:
            return tar.pax_headers.get(MARK)
    except tarfile.TarError:
        return None


def scan(data: pa.Buffer, *, name: str) -> Scan:
    """The index of a shard. DataError where it is cut or damaged, or its members are not whole samples in a row."""
    columns: dict[str, list[str | int | None]] = {column: [] for column in _SCAN.names}
    keys: set[str] = set()
    fields: set[str] = set()
    for sample in _samples(data, name):
        kind, image = _image(sample, name)
        fields |= sample.members.keys()
        row = (sample.key, image.offset_data, image.size, kind, _label(sample, data))
        for column, value in zip(columns.values(), row, strict=True):
            column.append(value)
        if sample.key in keys:
            raise DataError(f"{name}: {sample.key}: the members of this key do not stand together; {_AGAIN}")
        keys.add(sample.key)
    return Scan(name, data.size, checksum(data), frozenset(fields), pa.table(columns, _SCAN))


def checksum(data: pa.Buffer) -> str:
    """blake2b-128, in 32 hex digits"""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def _samples(data: pa.Buffer, name: str) -> Iterator[_Sample]:
    named = (found for member in _members(data, name) if (found := _split(member)))
    for key, group in groupby(named, key=itemgetter(0)):
        sample = _Sample(key, {})
        for _, kind, member in group:
            if kind in sample.members:
                raise DataError(f"{name}: {key}: two members .{kind}; {_AGAIN}")
            sample.members[kind] = member
        yield sample


def _members(data: pa.Buffer, name: str) -> Iterator[tarfile.TarInfo]:
    end = 0
    try:
        with tarfile.open(fileobj=pa.BufferReader(data), mode="r:", encoding="utf-8", errors="replace") as tar:
            for member in tar:
                end = tar.offset
                yield member
    except (tarfile.TarError, OSError) as error:
        raise DataError(f"{name}: cut or damaged after byte {end} of {data.size}: {error}; {_AGAIN}") from error
    tail = np.frombuffer(data, np.uint8)[end:]
    if len(tail) < 2 * BLOCK or data.size % BLOCK or tail.any():
        raise DataError(f"{name}: cut or damaged after byte {end} of {data.size}: no end of archive; {_AGAIN}")


def _split(member: tarfile.TarInfo) -> tuple[str, str, tarfile.TarInfo] | None:
    """Key, extension, member; None for what is no part of a sample: folders, hidden files, notes with no extension."""
    folder, slash, base = member.name.rpartition("/")
    stem, dot, kind = base.partition(".")
    if not member.isfile() or not stem or not dot:
        return None
    return folder + slash + stem, kind.lower(), member


def _image(sample: _Sample, name: str) -> tuple[str, tarfile.TarInfo]:
    images = [(kind, member) for kind, member in sample.members.items() if kind in IMAGES]
    if len(images) != 1:
        raise DataError(
            f"{name}: {sample.key}: one image expected ({', '.join(IMAGES)}), found: {', '.join(sample.members)}"
        )
    return images[0]


def _label(sample: _Sample, data: pa.Buffer) -> str | None:
    for kind, read in _READ.items():
        if member := sample.members.get(kind):
            text = data.slice(member.offset_data, member.size).to_pybytes().decode("utf-8", "replace").strip()
            label = read(text)
            if label not in (None, "-1"):  # which says "no label" to most tools
                return label
    return None


def _from_json(text: str) -> str | None:
    try:
        told = json.loads(text)
    except ValueError:
        return None
    found = [told[name] for name in ("label", "cls") if name in told] if isinstance(told, dict) else [told]
    return str(found[0]) if found and type(found[0]) in (int, str) else None


def _from_text(text: str) -> str | None:
    return text if text.isdecimal() else None  # else a caption


# where a label is looked for, in this order
_READ = {"cls": lambda text: text or None, "json": _from_json, "txt": _from_text}

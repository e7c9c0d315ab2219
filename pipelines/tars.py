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
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from selfsup.errors import DataError
from selfsup.pipelines.decode import Data

IMAGES = ("jpg", "jpeg", "png", "webp")
MARK = "selfsup.mark"  # in the tar's global header, which readers skip
BLOCK = 512
HEADERS = 4 * BLOCK  # where the mark stands: the global header, its text, and a member's header
_AGAIN = "fetch it again or write it anew"
_SCAN = pa.schema({"key": pa.string(), "start": pa.int64(), "length": pa.int32(), "label": pa.string()})


class Scan(NamedTuple):
    """What a shard holds. samples: key, bytes of the image member from its first header on, and label as text."""

    name: str
    size: int
    checksum: str
    fields: frozenset[str]
    samples: pa.Table


class _Sample(NamedTuple):
    key: str
    members: dict[str, tarfile.TarInfo]


def packed(samples: Iterable[tuple[str, bytes, int | None]], *, mark: str) -> bytes:
    """(key, JPEG, label) -> a tar, empty for no samples. Same samples, same bytes."""
    sink, number = io.BytesIO(), 0
    with tarfile.open(fileobj=sink, mode="w", format=tarfile.PAX_FORMAT, pax_headers={MARK: mark}) as tar:
        for number, (key, data, label) in enumerate(samples, start=1):  # noqa: B007 (it is the count in the end)
            _add(tar, f"{key}.jpg", data)
            if label is not None:
                _add(tar, f"{key}.cls", str(label).encode())
    return sink.getvalue() if number else b""


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)  # as made: nobody's, of 1970
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


def mark(data: bytes) -> str | None:
    """What `packed` was told, from the beginning of a tar; None for one that it did not write."""
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
            return tar.pax_headers.get(MARK)
    except tarfile.TarError:
        return None


def member(block: Data) -> tuple[str, Data]:
    """Bytes of a member, from its first header to the end of its data -> its sample's key, and the data.

    ValueError where that is not what they are: an image whose headers say that it has just this length.
    """
    header = bytes(block[:BLOCK])
    if header[156:157] in (b"0", b"\0"):  # of the plain kind
        name, prefix, start = _text(header[:100]), _text(header[345:500]), BLOCK
        digits = header[124:136].strip(b" \0")
        size = int(digits, 8) if digits.isdigit() else -1
        name = f"{prefix}/{name}" if prefix else name
    else:
        name, start, size = _through_tarfile(block)
    key, kind = _key(name) or ("", "")
    if start + size != len(block) or kind not in IMAGES:
        raise ValueError(f"no image of {len(block) - start} bytes where one was")
    return key, block[start:]


def _through_tarfile(block: Data) -> tuple[str, int, int]:
    """Name, where the data begins, and how long it is, whatever extensions the headers use."""
    try:
        with tarfile.open(fileobj=io.BytesIO(block), mode="r:", encoding="utf-8", errors="replace") as tar:
            told = tar.next()
    except tarfile.TarError as error:
        raise ValueError(str(error)) from error
    if told is None:
        raise ValueError("no header")
    return told.name, told.offset_data, told.size


def _text(field: bytes) -> str:
    return field.partition(b"\0")[0].decode("utf-8", "replace")


def scan(data: bytes, *, name: str) -> Scan:
    """The index of a shard. DataError where it is cut or damaged, or its members are not whole samples in a row."""
    columns: dict[str, list[str | int | None]] = {column: [] for column in _SCAN.names}
    keys: set[str] = set()
    fields: set[str] = set()
    for sample in _samples(data, name):
        image = _image(sample, name)
        fields |= sample.members.keys()
        row = (sample.key, image.offset, image.offset_data + image.size - image.offset, _label(sample, data))
        for column, value in zip(columns.values(), row, strict=True):
            column.append(value)
        if sample.key in keys:
            raise DataError(f"{name}: {sample.key}: the members of this key do not stand together; {_AGAIN}")
        keys.add(sample.key)
    return Scan(name, len(data), checksum(data), frozenset(fields), pa.table(columns, _SCAN))


def checksum(data: bytes) -> str:
    """blake2b-128, in 32 hex digits"""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def _samples(data: bytes, name: str) -> Iterator[_Sample]:
    named = (found for member in _members(data, name) if (found := _split(member)))
    for key, group in groupby(named, key=itemgetter(0)):
        sample = _Sample(key, {})
        for _, kind, member in group:
            if kind in sample.members:
                raise DataError(f"{name}: {key}: two members .{kind}; {_AGAIN}")
            sample.members[kind] = member
        yield sample


def _members(data: bytes, name: str) -> Iterator[tarfile.TarInfo]:
    end = 0
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:", encoding="utf-8", errors="replace") as tar:
            for member in tar:
                end = tar.offset
                yield member
    except (tarfile.TarError, OSError) as error:
        raise DataError(f"{name}: cut or damaged after byte {end} of {len(data)}: {error}; {_AGAIN}") from error
    tail = np.frombuffer(data, np.uint8)[end:]
    if len(tail) < 2 * BLOCK or len(data) % BLOCK or tail.any():
        raise DataError(f"{name}: cut or damaged after byte {end} of {len(data)}: no end of archive; {_AGAIN}")


def _split(member: tarfile.TarInfo) -> tuple[str, str, tarfile.TarInfo] | None:
    """Key, extension, member; None for what is no part of a sample: folders, hidden files, notes with no extension."""
    found = _key(member.name) if member.isfile() else None
    return (*found, member) if found else None


def _key(name: str) -> tuple[str, str] | None:
    folder, slash, base = name.rpartition("/")
    stem, dot, kind = base.partition(".")
    return (folder + slash + stem, kind.lower()) if stem and dot else None


def _image(sample: _Sample, name: str) -> tarfile.TarInfo:
    images = [member for kind, member in sample.members.items() if kind in IMAGES]
    if len(images) != 1:
        raise DataError(
            f"{name}: {sample.key}: one image expected ({', '.join(IMAGES)}), found: {', '.join(sample.members)}"
        )
    return images[0]


def _label(sample: _Sample, data: bytes) -> str | None:
    for kind, read in _READ.items():
        if member := sample.members.get(kind):
            text = data[member.offset_data : member.offset_data + member.size].decode("utf-8", "replace").strip()
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

"""One WebDataset shard: a tar in which consecutive members with the same key are a sample.

A member's key is its path up to the first dot of the file name; the rest says what it is. `tarfile` takes a tar
that is cut between two members for a whole one, so the end-of-archive blocks are looked for here.
"""

import hashlib
import io
import posixpath
import tarfile
from collections.abc import Iterable, Iterator
from itertools import groupby
from operator import itemgetter
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from selfsup.errors import DataError
from selfsup.pipelines.data import labels
from selfsup.pipelines.modalities.decode import Data

IMAGES = ("jpg", "jpeg", "png", "webp")
OTHERS = ("jfif", "jpe", "gif", "bmp", "tif", "tiff", "ppm", "pgm", "avif")  # where there is none of these
COMPRESSED = {b"\x1f\x8b": "gzip -d", b"BZh": "bzip2 -d", b"\xfd7zXZ": "xz -d", b"(\xb5/\xfd": "zstd -d"}
MARK = "selfsup.mark"  # in the tar's global header, which readers skip
BLOCK = 512
HEADERS = 4 * BLOCK  # where the mark stands: the global header, its text, and a member's header
_AGAIN = "fetch it again or write it anew"
_SCAN = pa.schema(
    {"key": pa.string(), "start": pa.int64(), "length": pa.int32(), "label": pa.string()}
    | dict.fromkeys(labels.UNSURE, pa.string())
)


class Scan(NamedTuple):
    """What a shard holds. samples: key, bytes of the image member from its first header on, and label as text.

    Samples stand in the order of their images. unread: what stands where a label was expected, of each sample.
    """

    name: str
    size: int
    checksum: str
    fields: frozenset[str]
    samples: pa.Table
    unread: tuple[str, ...]


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
    if start + size != len(block):
        raise ValueError(f"no image of {len(block) - start} bytes where one was")
    return (_key(name) or (name,))[0], block[start:]


def _through_tarfile(block: Data) -> tuple[str, int, int]:
    """Name, where the data begins, and how long it is, whatever extensions the headers use."""
    try:
        with tarfile.open(fileobj=io.BytesIO(block), mode="r:", encoding="utf-8", errors="backslashreplace") as tar:
            told = tar.next()
    except tarfile.TarError as error:
        raise ValueError(str(error)) from error
    if told is None:
        raise ValueError("no header")
    return told.name, told.offset_data, told.size


def _text(field: bytes) -> str:
    return field.partition(b"\0")[0].decode("utf-8", "backslashreplace")


def scan(data: bytes, *, name: str) -> Scan:
    """The index of a shard. DataError where it is cut or damaged, or its members are not whole samples in a row."""
    rows: list[tuple[str | int | None, ...]] = []
    keys: set[str] = set()
    fields: set[str] = set()
    unread: list[str] = []
    for sample in _samples(data, name):
        image = _image(sample, name)
        fields |= sample.members.keys()
        unsure = (_number(sample, kind, data) for kind in labels.UNSURE)
        length = image.offset_data + image.size - image.offset
        rows.append((sample.key, image.offset, length, _label(sample, data, unread), *unsure))
        if sample.key in keys:
            raise DataError(f"{name}: {sample.key}: the members of this key do not stand together; {_AGAIN}")
        keys.add(sample.key)
    rows.sort(key=itemgetter(1))  # else only links stand out of order
    columns = zip(*rows, strict=True) if rows else [()] * len(_SCAN)
    table = pa.table([pa.array(column, each.type) for column, each in zip(columns, _SCAN, strict=True)], schema=_SCAN)
    return Scan(name, len(data), checksum(data), frozenset(fields), table, tuple(unread))


def checksum(data: bytes) -> str:
    """blake2b-128, in 32 hex digits"""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def _samples(data: bytes, name: str) -> Iterator[_Sample]:
    for key, group in groupby(_followed(list(_members(data, name)), name), key=itemgetter(0)):
        sample = _Sample(key, {})
        for _, kind, member in group:
            if kind in sample.members:
                raise DataError(f"{name}: {key}: two members .{kind}; {_AGAIN}")
            sample.members[kind] = member
        yield sample


def _followed(members: list[tarfile.TarInfo], name: str) -> Iterator[tuple[str, str, tarfile.TarInfo]]:
    """Key, extension, and the member that holds the data, for all that is part of a sample.

    That is: no folders, hidden files, and notes with no extension. DataError for what the shard has no bytes of.
    """
    places = {posixpath.normpath(member.name): member for member in members}
    for member in members:
        key = None if member.isdir() else _key(member.name)
        target = _target(member, places) if key else None
        if key is None or (target and target.isdir()):
            continue
        if target is None:
            what = f"a link to {member.linkname}, which is not in this shard"
            raise DataError(f"{name}: {member.name}: {what}; write it with `tar --dereference --hard-dereference`")
        if not target.isfile() or target.issparse():
            raise DataError(f"{name}: {member.name}: a sparse file or a device; write it anew, as a plain file")
        yield *key, target


def _target(member: tarfile.TarInfo, places: dict[str, tarfile.TarInfo]) -> tarfile.TarInfo | None:
    """What a link leads to over any number of others; None where it leads nowhere, or back to itself."""
    passed = set[int]()
    while member.islnk() or member.issym():
        passed.add(id(member))
        folder = posixpath.dirname(member.name) if member.issym() else ""  # a hard link is told from the top
        found = places.get(posixpath.normpath(posixpath.join(folder, member.linkname)))
        if found is None or id(found) in passed:
            return None
        member = found
    return member


def _members(data: bytes, name: str) -> Iterator[tarfile.TarInfo]:
    end = 0
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:", encoding="utf-8", errors="backslashreplace") as tar:
            for member in tar:
                end = tar.offset
                yield member
    except (tarfile.TarError, OSError) as error:
        if remedy := next((told for start, told in COMPRESSED.items() if data.startswith(start)), None):
            raise DataError(f"{name}: compressed: no sample can be read alone; unpack it with `{remedy}`") from error
        raise DataError(f"{name}: cut or damaged after byte {end} of {len(data)}: {error}; {_AGAIN}") from error
    tail = np.frombuffer(data, np.uint8)[end:]
    if len(tail) < 2 * BLOCK or len(data) % BLOCK or tail.any():
        raise DataError(f"{name}: cut or damaged after byte {end} of {len(data)}: no end of archive; {_AGAIN}")


def _key(name: str) -> tuple[str, str] | None:
    folder, slash, base = name.rpartition("/")
    stem, dot, kind = base.partition(".")
    return (folder + slash + stem, kind.lower()) if stem and dot else None


def _image(sample: _Sample, name: str) -> tarfile.TarInfo:
    images = [member for kind, member in sample.members.items() if kind in IMAGES]
    images = images or [member for kind, member in sample.members.items() if kind in OTHERS]
    if len(images) != 1:
        found = ", ".join(sample.members)
        raise DataError(f"{name}: {sample.key}: one image expected ({', '.join(IMAGES)} ...), found: {found}")
    return images[0]


def _label(sample: _Sample, data: bytes, unread: list[str]) -> str | None:
    """The first label of the sample; what stood in place of one goes to `unread`."""
    for kind in labels.SURE:
        if member := sample.members.get(kind):
            try:
                label = labels.read(kind, _bytes(member, data))
            except labels.Unreadable as error:
                unread.append(f"{sample.key}.{kind}: {error}")
                continue
            if label is not None:
                return label
    return None


def _number(sample: _Sample, kind: str, data: bytes) -> str | None:
    member = sample.members.get(kind)
    return labels.number(_bytes(member, data)) if member else None


def _bytes(member: tarfile.TarInfo, data: bytes) -> bytes:
    return data[member.offset_data : member.offset_data + member.size]

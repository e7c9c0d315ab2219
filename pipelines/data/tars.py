"""WebDataset shards: tars in which consecutive members with the same key are a sample.

The key of a member is its path up to the first dot of the file name; the extension after it is its kind. `tarfile`
accepts a tar that is truncated between two members, so the end-of-archive blocks are checked here.
"""

import hashlib
import io
import posixpath
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from selfsup import modality
from selfsup.errors import DataError
from selfsup.modality import Data
from selfsup.pipelines.data import annotation, labels

DECOMPRESSORS = {b"\x1f\x8b": "gzip -d", b"BZh": "bzip2 -d", b"\xfd7zXZ": "xz -d", b"(\xb5/\xfd": "zstd -d"}
MARK = "selfsup.mark"  # in the tar's global header, which readers skip
BLOCK = 512
HEADERS = 4 * BLOCK  # bytes that hold the mark: the global header, its text, and a member's header
_REMEDY = "fetch it again or write it anew"
PLACE = pa.struct({"start": pa.int64(), "length": pa.int32()})  # of a member with its headers


class ShardScan(NamedTuple):
    """The content of a shard.

    samples: key, label as text, and the place of the member of each modality and annotation, null where there is none;
    in the order of their first members. unread: a message for each label that cannot be parsed.
    """

    name: str
    size: int
    checksum: str
    members: frozenset[str]
    samples: pa.Table
    unread: tuple[str, ...]


class _Sample(NamedTuple):
    key: str
    members: dict[str, tarfile.TarInfo]


def write_tar(samples: Iterable[tuple[str, str, bytes, int | None]], *, mark: str) -> bytes:
    """Return a tar of (key, suffix, data, label), b"" without samples. The bytes depend on samples and mark alone."""
    sink, number = io.BytesIO(), 0
    with tarfile.open(fileobj=sink, mode="w", format=tarfile.PAX_FORMAT, pax_headers={MARK: mark}) as tar:
        for number, (key, suffix, data, label) in enumerate(samples, start=1):  # noqa: B007 (the count in the end)
            _add(tar, f"{key}.{suffix}", data)
            if label is not None:
                _add(tar, f"{key}.cls", str(label).encode())
    return sink.getvalue() if number else b""


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)  # without owner or time
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


def read_mark(data: bytes) -> str | None:
    """Return the mark at the beginning of a tar of `write_tar`; None for any other tar."""
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
            return tar.pax_headers.get(MARK)
    except tarfile.TarError:
        return None


def parse_member(block: Data) -> tuple[str, Data]:
    """Return the sample's key and the data of a member. block: from its first header to the end of its data.

    Raises ValueError where the headers do not describe a file of just this length.
    """
    header = bytes(block[:BLOCK])
    if header[156:157] in (b"0", b"\0"):  # a plain header
        name, prefix, start = _text(header[:100]), _text(header[345:500]), BLOCK
        digits = header[124:136].strip(b" \0")
        size = int(digits, 8) if digits.isdigit() else -1
        name = f"{prefix}/{name}" if prefix else name
    else:
        name, start, size = _through_tarfile(block)
    if start + size != len(block):
        raise ValueError(f"no member of {len(block) - start} bytes where one was")
    return (_key(name) or (name,))[0], block[start:]


def _through_tarfile(block: Data) -> tuple[str, int, int]:
    """Return name, start and length of the data, whatever extensions the headers use."""
    try:
        with tarfile.open(fileobj=io.BytesIO(block), mode="r:", encoding="utf-8", errors="backslashreplace") as tar:
            member = tar.next()
    except tarfile.TarError as error:
        raise ValueError(str(error)) from error
    if member is None:
        raise ValueError("no header")
    return member.name, member.offset_data, member.size


def _text(field: bytes) -> str:
    return field.partition(b"\0")[0].decode("utf-8", "backslashreplace")


def scan(data: bytes, *, name: str) -> ShardScan:
    """Return the content of a shard.

    Raises DataError where it is truncated or damaged, or a sample's members are not consecutive.
    """
    rows: list[dict[str, Any]] = []
    keys: set[str] = set()
    members: set[str] = set()
    unread: list[str] = []
    for sample in _samples(data, name):
        members |= sample.members.keys()
        unsure = {kind: _number(sample, kind, data) for kind in labels.UNSURE}
        own = {"key": sample.key, "label": _label(sample, data, unread)}
        rows.append(own | unsure | _places(sample, name))
        if sample.key in keys:
            raise DataError(f"{name}: {sample.key}: the members of this key are not consecutive; {_REMEDY}")
        keys.add(sample.key)
    rows.sort(key=_first)  # only links are out of order
    return ShardScan(
        name, len(data), checksum(data), frozenset(members), pa.Table.from_pylist(rows, _schema()), tuple(unread)
    )


def parts() -> tuple[str, ...]:
    """Return what a row may have a place for: modalities, and annotations by their suffixes."""
    return (*modality.names(), *annotation.SUFFIXES.values(), *modality.companions())


def _schema() -> pa.Schema:
    texts = dict.fromkeys(("key", "label", *labels.UNSURE), pa.string())
    return pa.schema(texts | dict.fromkeys(parts(), PLACE))


def _first(row: Mapping[str, Any]) -> int:
    """Return where the first member of a row begins."""
    starts: list[int] = [row[name]["start"] for name in modality.names() if row[name]]
    return min(starts)


def checksum(data: bytes) -> str:
    """Return the BLAKE2b-128 of bytes in 32 hex digits."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def _samples(data: bytes, name: str) -> Iterator[_Sample]:
    for key, group in groupby(_resolve_links(list(_members(data, name)), name), key=itemgetter(0)):
        sample = _Sample(key, {})
        for _, kind, member in group:
            if kind in sample.members:
                raise DataError(f"{name}: {key}: two members .{kind}; {_REMEDY}")
            sample.members[kind] = member
        yield sample


def _resolve_links(members: list[tarfile.TarInfo], name: str) -> Iterator[tuple[str, str, tarfile.TarInfo]]:
    """Yield key, kind and the member with the data, for all members of samples.

    Folders, hidden files and files without extension are skipped. Raises DataError for data that is not in the shard.
    """
    by_path = {posixpath.normpath(member.name): member for member in members}
    for member in members:
        key = None if member.isdir() else _key(member.name)
        target = _target(member, by_path) if key else None
        if key is None or (target and target.isdir()):
            continue
        if target is None:
            problem = f"a link to {member.linkname}, which is not in this shard"
            raise DataError(f"{name}: {member.name}: {problem}; write it with `tar --dereference --hard-dereference`")
        if not target.isfile() or target.issparse():
            raise DataError(f"{name}: {member.name}: a sparse file or a device; write it anew, as a plain file")
        yield *key, target


def _target(member: tarfile.TarInfo, by_path: dict[str, tarfile.TarInfo]) -> tarfile.TarInfo | None:
    """Return the member that a chain of links leads to; None for a missing target or a cycle."""
    visited = set[int]()
    while member.islnk() or member.issym():
        visited.add(id(member))
        folder = posixpath.dirname(member.name) if member.issym() else ""  # hard links are relative to the root
        target = by_path.get(posixpath.normpath(posixpath.join(folder, member.linkname)))
        if target is None or id(target) in visited:
            return None
        member = target
    return member


def _members(data: bytes, name: str) -> Iterator[tarfile.TarInfo]:
    end = 0
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:", encoding="utf-8", errors="backslashreplace") as tar:
            for member in tar:
                end = tar.offset
                yield member
    except (tarfile.TarError, OSError) as error:
        if command := next((command for magic, command in DECOMPRESSORS.items() if data.startswith(magic)), None):
            problem = "compressed, so that no sample can be read alone"
            raise DataError(f"{name}: {problem}; decompress it with `{command}`") from error
        raise DataError(f"{name}: truncated or damaged after byte {end} of {len(data)}: {error}; {_REMEDY}") from error
    tail = np.frombuffer(data, np.uint8)[end:]
    if len(tail) < 2 * BLOCK or len(data) % BLOCK or tail.any():
        raise DataError(f"{name}: truncated or damaged after byte {end} of {len(data)}: no end of archive; {_REMEDY}")


def _key(name: str) -> tuple[str, str] | None:
    """Return key and kind of a member; None for a hidden file or one without extension."""
    folder, slash, base = name.rpartition("/")
    stem, dot, kind = base.partition(".")
    return (folder + slash + stem, kind.lower()) if stem and dot else None


def _places(sample: _Sample, name: str) -> dict[str, dict[str, int] | None]:
    """Return the place of the member of each modality and annotation, None where there is none."""
    members = {kind: _member(sample, kind, name) for kind in modality.names()}
    if not any(members.values()):
        expected = " or ".join(_wanted(kind) for kind in modality.names() if not modality.load(kind).form_of)
        raise DataError(f"{name}: {sample.key}: expected {expected}, got members: {', '.join(sample.members)}")
    members |= {suffix: sample.members.get(suffix) for suffix in annotation.SUFFIXES.values()}
    members |= {kind: _member(sample, kind, name) for kind in modality.companions()}
    return {
        kind: {"start": member.offset, "length": member.offset_data + member.size - member.offset} if member else None
        for kind, member in members.items()
    }


def _member(sample: _Sample, name: str, shard: str) -> tarfile.TarInfo | None:
    """Return the member of a modality; None without. Raises DataError for several."""
    kind = modality.load(name)
    usual = [member for suffix, member in sample.members.items() if suffix in kind.suffixes]
    members = usual or [member for suffix, member in sample.members.items() if suffix in kind.others]
    if len(members) > 1:
        raise DataError(f"{shard}: {sample.key}: expected {_wanted(name)}, got members: {', '.join(sample.members)}")
    return members[0] if members else None


def _wanted(name: str) -> str:
    return f"one {name} ({', '.join(modality.load(name).suffixes)} ...)"


def _label(sample: _Sample, data: bytes, unread: list[str]) -> str | None:
    """Return the first label of a sample; append a message to `unread` for each that cannot be parsed."""
    for kind in labels.SURE:
        if member := sample.members.get(kind):
            try:
                label = labels.read(kind, _bytes(member, data))
            except labels.LabelError as error:
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

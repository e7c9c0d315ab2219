"""Packing of a folder of files into WebDataset shards with a manifest."""

import hashlib
import os
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from itertools import chain, count
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from selfsup import modality
from selfsup.errors import DataError
from selfsup.modality import DecodeError
from selfsup.pipelines.data import head, shards, storage, tars, urls
from selfsup.pipelines.data.classes import NAMES_FILE as CLASSNAMES
from selfsup.pipelines.data.folders import Walk, suffixes
from selfsup.pipelines.data.manifest import Manifest
from selfsup.pipelines.data.shards import Progress, no_progress, no_remark

BATCH = 64  # files encoded at a time


class PackResult(NamedTuple):
    """A packed data set. skipped: path -> reason, of undecodable files; left_out: number of other files by kind."""

    manifest: Manifest
    skipped: Mapping[str, str]
    left_out: Mapping[str, int]


class PackSource(NamedTuple):
    """A file to be packed. label: the number of its folder among the classes; None in a flat folder."""

    path: Path
    key: str
    label: int | None


def pack(
    folder: str | Path,
    out: str | Path,
    *,
    shard_size: int = 1000,
    reading: Mapping[str, Any] = MappingProxyType({}),
    progress: Progress = no_progress,
    **options: Any,
) -> PackResult:
    """Pack a folder of files, flat or with a folder per class, into shards of `shard_size` samples and a manifest.

    The files are images, or where there is none, of the first other modality; links are followed. out: a folder or URL;
    one shard at a time is in memory. reading: modality -> how its values are read. options: of the modality's coding:
    for images resize and quality. progress: counts files. The same files give the same shards, byte for byte; shards
    that an interrupted call has finished are kept. Raises DataError where no file can be decoded, or where `out` holds
    shards that were not packed here.
    """
    root, home = Path(folder).absolute(), urls.absolute(str(out))
    try:
        name = _modality(root)
        walk, kind = Walk(root, name), modality.load(name)
        sources, classes = _sources(root, walk)
        coding = kind.coding(reading.get(name) or kind.Reading(), **options)
        _inspect(root, coding, sources)
        marks = _prepare(home, root, classes)
        scans = []
        for number, start in enumerate(range(0, len(sources), shard_size)):
            part = sources[start : start + shard_size]
            tick = partial(_advance, progress, start, len(sources))
            shard = f"{number:06d}.tar"
            scans.append(_write_shard(home, shard, marks.get(shard), part, coding, tick))
        written = [scan for scan in scans if scan]
        skipped = _remove_outdated(home, sources, coding, written, marks)
        if not written:
            path, reason = next(iter(skipped.items()))
            problem = f"not one of its {len(sources)} {name}s can be decoded"
            raise DataError(f"{root}: {problem}; {path}: {reason}")
        return PackResult(
            shards.assemble(home, home, written, no_remark, {name: coding.reading}), skipped, walk.left_out
        )
    except OSError as error:
        raise DataError(f"{folder} cannot be packed into {out}: {error}") from error


def _modality(root: Path) -> str:
    """Return the first modality that a folder has a file of; images where it has none."""
    kinds = {name: suffixes(name) for name in modality.names()}
    files = (Path(name).suffix.lower() for _, _, names in os.walk(root) for name in names)
    names = {name for suffix in files for name, known in kinds.items() if suffix in known} if len(kinds) > 1 else ()
    return next((name for name in kinds if name in names), "image")


def _inspect(root: Path, coding: Any, sources: list[PackSource]) -> None:
    try:
        coding.inspect([source.path for source in sources])
    except DataError as error:
        raise DataError(f"{root}: {error}") from error


def _advance(progress: Progress, start: int, total: int, done: int) -> None:
    progress(start + done, total)


def _sources(folder: Path, walk: Walk) -> tuple[list[PackSource], list[str]]:
    """Return all images by class and path, and the classes: all folders, also empty ones, so that splits agree."""
    if not folder.is_dir():
        raise DataError(f"{folder}: not a folder; expected one of images")
    flat, folders = walk.files(folder), walk.folders(folder)
    nested = [walk.samples(path) for path in folders]
    if bool(flat) == any(nested):
        others = ", ".join(f"{number} {kind}" for kind, number in sorted(walk.left_out.items()))
        wanted = f"{'/'.join(modality.load(walk.modality).suffixes)} {walk.modality}"
        none = f"no {wanted} in it{f' (but {others})' if others else ''}"
        problem = f"{walk.modality}s both in it and in folders of it" if flat else none
        raise DataError(f"{folder}: {problem}; expected a folder per class, or all {walk.modality}s in one folder")
    labelled: list[tuple[Path, int | None]] = [(path, None) for path in flat]
    labelled += [(path, label) for label, paths in enumerate(nested) for path in paths]
    keys = _keys([path.relative_to(folder) for path, _ in labelled])
    sources = [PackSource(path, key, label) for (path, label), key in zip(labelled, keys, strict=True)]
    return sources, [] if flat else [path.name for path in folders]


def _keys(paths: list[Path]) -> list[str]:
    """Return unique keys without dots, at which WebDataset would cut them: a.jpg and a.png -> a, a-2."""
    keys: dict[str, None] = {}
    for path in paths:
        key = path.with_name(path.stem.replace(".", "_")).as_posix()
        numbered = (f"{key}-{number}" for number in count(2))
        keys[next(candidate for candidate in chain([key], numbered) if candidate not in keys)] = None
    return list(keys)


def _prepare(out: str, folder: Path, classes: list[str]) -> dict[str, str]:
    """Remove the manifest and write the names of classes; return the marks of the shards in `out`."""
    if not urls.is_remote(out) and Path(out).is_relative_to(folder):
        raise DataError(f"{out} lies inside {folder}, the images to pack; choose another place")
    marks = {name: _mark_in(out, name) for name in storage.list_files(out, suffix=".tar", must_exist=False)}
    storage.remove(out, head.NAME)  # it is not valid from here on
    storage.remove(out, CLASSNAMES)
    if classes:
        storage.write(out, CLASSNAMES, "".join(f"{name}\n" for name in classes).encode())
    return marks


def _mark_in(out: str, name: str) -> str:
    file = storage.open_file(out, name, remedy="put it back")
    if (mark := tars.read_mark(file.read(0, min(file.size, tars.HEADERS)))) is None:
        raise DataError(f"{file.url}: was not packed here and would be lost; choose another place for the shards")
    return mark


def _write_shard(
    out: str,
    name: str,
    present: str | None,
    sources: list[PackSource],
    coding: Any,
    tick: Callable[[int], None],
) -> tars.ShardScan | None:
    """Write a shard unless it is there; None where no image can be decoded. present: the mark of the shard there."""
    mark = _mark(sources, coding)
    if present == mark:
        with suppress(DataError):  # damaged since
            scan = shards.scan(out, name)
            tick(len(sources))
            return scan
    data = tars.write_tar(_encode(sources, coding, tick), mark=mark)
    if data:
        storage.write(out, name, data)
    return tars.scan(data, name=name) if data else None


def _mark(sources: list[PackSource], coding: Any) -> str:
    """Return a digest of everything that a shard is made from."""
    total = hashlib.blake2b(coding.settings.encode(), digest_size=16)
    for source in sources:
        total.update(repr((source.key, source.label)).encode())
        total.update(hashlib.blake2b(source.path.read_bytes()).digest())
    return total.hexdigest()


def _encode(
    sources: list[PackSource], coding: Any, tick: Callable[[int], None]
) -> Iterator[tuple[str, str, bytes, int | None]]:
    """Yield (key, suffix, data, label) of all files that can be decoded."""
    with ThreadPoolExecutor() as pool:
        for start in range(0, len(sources), BATCH):
            batch = sources[start : start + BATCH]
            encoded = pool.map(partial(_try_encode, coding), batch)
            for source, member in zip(batch, encoded, strict=True):
                if not isinstance(member, DecodeError):
                    yield source.key, *member, source.label
            tick(start + len(batch))


def _try_encode(coding: Any, source: PackSource) -> tuple[str, bytes] | DecodeError:
    """Return suffix and bytes of a member, or why there is none."""
    try:
        member: tuple[str, bytes] = coding.encode(source.path)
    except DecodeError as error:
        return error
    return member


def _remove_outdated(
    out: str, sources: list[PackSource], coding: Any, scans: list[tars.ShardScan], present: Collection[str]
) -> Mapping[str, str]:
    """Remove shards of an earlier call, or without a single sample; return undecodable files and the reasons."""
    keys = {key for scan in scans for key in scan.samples["key"].to_pylist()}
    skipped = {str(source.path): str(_try_encode(coding, source)) for source in sources if source.key not in keys}
    for name in set(present) - {scan.name for scan in scans}:
        storage.remove(out, name)
    return skipped

"""Packing of a folder of files into WebDataset shards with a manifest."""

import hashlib
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from selfsup import modality
from selfsup.errors import DataError
from selfsup.modality import DecodeError
from selfsup.pipelines.data import head, shards, storage, tars, urls
from selfsup.pipelines.data.classes import NAMES_FILE as CLASSNAMES
from selfsup.pipelines.data.folders import PackFile, Sources, find
from selfsup.pipelines.data.manifest import Manifest
from selfsup.pipelines.data.shards import Progress, Remark, no_progress, no_remark

BATCH = 64  # files encoded at a time


class PackResult(NamedTuple):
    """A packed data set.

    skipped: path -> reason, of undecodable files; left_out: number of other files by kind; classes: number of samples.
    """

    manifest: Manifest
    skipped: Mapping[str, str]
    left_out: Mapping[str, int]
    classes: Mapping[str, int]


def pack(
    folder: str | Path | Sources,
    out: str | Path,
    *,
    shard_size: int = 1000,
    reading: Mapping[str, Any] = MappingProxyType({}),
    progress: Progress = no_progress,
    remark: Remark = no_remark,
    **options: Any,
) -> PackResult:
    """Pack a folder of files, flat or with a folder per class, into shards of `shard_size` samples and a manifest.

    The files are of the modality that most files in the folder are of; links are followed. folder: or what
    `folders.find` found in one. out: a folder or URL; one shard at a time is in memory. reading: modality -> how its
    values are read. options: of the modality's coding: for images resize, quality, keep and background. progress:
    counts files. remark: receives advice on options. The same files give the same shards, byte for byte; shards that an
    interrupted call has finished are kept. Raises DataError where no file can be decoded, or where `out` holds shards
    that were not packed here.
    """
    home = urls.absolute(str(out))
    try:
        sources = folder if isinstance(folder, Sources) else find(Path(folder).absolute())
        kind = modality.ready(sources.modality)
        coding = kind.coding(reading.get(sources.modality) or kind.Reading(), **options)
        for advice in _inspect(sources, coding):
            remark(advice)
        return _pack(sources, home, coding, shard_size, progress)
    except OSError as error:
        raise DataError(f"{folder} cannot be packed into {out}: {error}") from error


def _pack(sources: Sources, home: str, coding: Any, shard_size: int, progress: Progress) -> PackResult:
    files, name = sources.files, sources.modality
    marks = _prepare(home, sources)
    scans = []
    for number, start in enumerate(range(0, len(files), shard_size)):
        part = files[start : start + shard_size]
        tick = partial(_advance, progress, start, len(files))
        shard = f"{number:06d}.tar"
        scans.append(_write_shard(home, shard, marks.get(shard), part, coding, tick))
    written = [scan for scan in scans if scan]
    skipped = _remove_outdated(home, files, coding, written, marks)
    if not written:
        path, reason = next(iter(skipped.items()))
        raise DataError(f"{sources.root}: not one of its {len(files)} {name} files can be decoded; {path}: {reason}")
    packed = shards.assemble(home, home, written, no_remark, {name: coding.reading})
    numbers = Counter(file.label for file in files if str(file.path) not in skipped)
    counts = {title: numbers[label] for label, title in enumerate(sources.classes)}
    return PackResult(packed, skipped, sources.left_out, counts)


def _inspect(sources: Sources, coding: Any) -> list[str]:
    try:
        advice: list[str] = coding.inspect([file.path for file in sources.files])
    except DataError as error:
        raise DataError(f"{sources.root}: {error}") from error
    return advice


def _advance(progress: Progress, start: int, total: int, done: int) -> None:
    progress(start + done, total)


def _prepare(out: str, sources: Sources) -> dict[str, str]:
    """Remove the manifest and write the names of classes; return the marks of the shards in `out`."""
    if not urls.is_remote(out) and Path(out).is_relative_to(sources.root):
        raise DataError(f"{out} lies inside {sources.root}, the {sources.modality} files to pack; choose another place")
    return clear(out, sources.classes)


def clear(out: str, classes: Sequence[str]) -> dict[str, str]:
    """Remove the manifest in a folder and write the names of classes; return the marks of the shards in it.

    Raises DataError for a shard that was not packed here.
    """
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
    sources: list[PackFile],
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


def _mark(sources: list[PackFile], coding: Any) -> str:
    """Return a digest of everything that a shard is made from."""
    total = hashlib.blake2b(coding.settings.encode(), digest_size=16)
    for source in sources:
        total.update(repr((source.key, source.label)).encode())
        total.update(hashlib.blake2b(source.path.read_bytes()).digest())
    return total.hexdigest()


def _encode(
    sources: list[PackFile], coding: Any, tick: Callable[[int], None]
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


def _try_encode(coding: Any, source: PackFile) -> tuple[str, bytes] | DecodeError:
    """Return suffix and bytes of a member, or why there is none."""
    try:
        member: tuple[str, bytes] = coding.encode(source.path)
    except DecodeError as error:
        return error
    return member


def _remove_outdated(
    out: str, sources: list[PackFile], coding: Any, scans: list[tars.ShardScan], present: Collection[str]
) -> Mapping[str, str]:
    """Remove shards of an earlier call, or without a single sample; return undecodable files and the reasons."""
    keys = {key for scan in scans for key in scan.samples["key"].to_pylist()}
    skipped = {str(source.path): str(_try_encode(coding, source)) for source in sources if source.key not in keys}
    for name in set(present) - {scan.name for scan in scans}:
        storage.remove(out, name)
    return skipped

"""Data sets of WebDataset shards: write the manifest of one, whoever made it, and check one against its manifest."""

import logging
import re
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from tempfile import TemporaryFile
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from selfsup.errors import DataError
from selfsup.pipelines.data import classes, manifest, storage, tars, urls
from selfsup.pipelines.data.gather import Gathered
from selfsup.pipelines.data.manifest import Manifest, Reader
from selfsup.pipelines.data.rows import Table
from selfsup.pipelines.modalities.decode import Undecodable, decode, depth

logger = logging.getLogger(__name__)
Progress = Callable[[int, int], None]  # done, in total
Remark = Callable[[str], None]

MEASURED = 512  # images for mean and deviation
MEASURED_SIDE = 256  # pixels, about what is cut into crops: the deviation falls with the resolution
SENSOR = 14  # bits, of most cameras and scanners at most
SCANNED = 4  # shards at a time
PLACES = ".cls, .class, .label, .index, .txt, or in .json under label, cls or class"
COMPRESSED = re.compile(r"\.(tar\.\w+|tgz|tbz2?|txz|tzst|tlz)$", re.IGNORECASE)  # shards; notes.txt.gz is none
DIGITS = 6  # of mean and deviation
FLOOR = 1 / 255  # of a deviation: to divide by that of one flat colour would be to divide by zero


def silent(done: int, total: int) -> None:
    """No progress shown."""


def unsaid(_: str) -> None:
    """No remark made."""


def index(
    url: str,
    *,
    out: str | None = None,
    bits: int | None = None,
    progress: Progress = silent,
    remark: Remark = logger.warning,
) -> Manifest:
    """Write the manifest of a folder of .tar shards, beside them or in `out`. `progress` counts shards.

    Images are .jpg/.jpeg/.png/.webp, or else one of the rarer formats; labels .cls, .class, .label or .json ("label",
    "cls" or "class"), or else .index or .txt where all samples have a number there; a file `classnames.txt` names them.
    What is not taken for a label goes to `remark`. bits: as for `settled`. A few shards at a time are in memory.
    DataError for shards that are cut, damaged or compressed, lie in sub-folders, or whose samples are not whole.
    """
    root = urls.absolute(url)
    shards = names(root)
    if not shards:
        raise DataError(f"{url}: no .tar file in it; to make shards of images, run `selfsup shards pack`")
    place = root if out is None else urls.absolute(out)
    return assemble(place, root, _scans(root, shards, progress), remark, bits=bits)


def names(root: str) -> list[str]:
    """The shards directly in a folder. DataError for shards of which it would have to leave some out."""
    files, folders = storage.listed(root)
    if packed := [name for name in files if COMPRESSED.search(name)]:
        more = f" and {len(packed) - 1} more" if packed[1:] else ""
        raise DataError(f"{root}: {packed[0]}{more}: compressed: no sample can be read alone; unpack with `gzip -d`")
    own = [name for name in files if name.lower().endswith(".tar")]
    for folder in folders:
        if nested := storage.names(urls.within(root, folder), suffix=".tar", there=False):
            remedy = "move one of the two beside the other, then index each" if own else "index each folder by itself"
            raise DataError(f"{root}: shards lie in {folder}/{', too' if own else ''} ({nested[0]} ...): {remedy}")
    return own


def _scans(root: str, shards: list[str], progress: Progress) -> Iterator[tars.Scan]:
    with ThreadPoolExecutor(SCANNED) as pool:
        for start in range(0, len(shards), SCANNED):
            some = shards[start : start + SCANNED]
            for done, found in enumerate(pool.map(partial(scan, root), some), start=start + 1):
                if not len(found.samples):
                    raise DataError(f"{urls.within(root, found.name)}: holds no samples; remove it")
                progress(done, len(shards))
                yield found


def scan(root: str, name: str) -> tars.Scan:
    data = storage.read(root, name, remedy="put it back")
    try:
        return tars.scan(data, name=name)
    except DataError as error:
        raise DataError(f"{root}/{error}") from error


def assemble(home: str, root: str, scans: Iterable[tars.Scan], remark: Remark, *, bits: int | None = None) -> Manifest:
    """Write the manifest of scanned shards to `home`; its head last, once the rest can be read through it.

    Labels are numbered when all are known: until then, samples wait in a temporary file.
    """
    with TemporaryFile() as file:
        gathered = Gathered(file)
        for each in scans:
            gathered.add(each)
        known = classes.names(root)
        kind = classes.source(gathered.labels, gathered.num_samples, known)
        numbers, names = classes.numbered(gathered.labels[kind], known)
        table = pa.table([pa.array(column) for column in zip(*gathered.rows, strict=True)], schema=manifest.SHARD_ROW)
        written = manifest.write_tables(home, table, partial(gathered.read, kind, numbers))
    for text in _remarks(gathered, kind, known, written.num_labelled):
        remark(f"{root}: {text}")
    draft = Manifest(
        home=home,
        root=root,
        digest="",
        rows_digest=written.digest,
        num_samples=gathered.num_samples,
        num_labelled=written.num_labelled,
        fields=tuple(sorted(gathered.fields)),
        classes=names,
        mean=(),
        std=(),
        shards=table,
        bits=None if bits == 16 else bits,
    )
    try:
        mean, std, depths = moments(draft, remark)
        settled(root, bits, depths)
    except DataError:
        manifest.withdraw(home)
        raise
    return manifest.write_head(replace(draft, mean=mean, std=std))


def _remarks(gathered: Gathered, kind: str, known: tuple[str, ...], labelled: int) -> Iterator[str]:
    if gathered.num_unread:
        yield f"{gathered.num_unread} labels cannot be read and count as none, such as {gathered.unread[0]}"
    yield from classes.remarks(gathered.labels, kind, gathered.num_samples, known)
    if not labelled:
        yield f"no labels; they are read from {PLACES}, and these shards hold {', '.join(sorted(gathered.fields))}"


def settled(place: str, bits: int | None, depths: Iterable[int]) -> None:
    """DataError where images of 16 bits use no more than a sensor's 14, and nobody said how many are white.

    They may be dark, or have fewer bits. depths: of the images, as `depth` tells them.
    """
    used = max(depths, default=0)
    if bits is None and 0 < used <= SENSOR:
        which = f"--bits {max(used, 8)} if that is white, or --bits 16 if the images are dark"
        raise DataError(f"{place}: images of 16 bits hold no value of more than {used} bits; say {which}")


def moments(told: Manifest, remark: Remark) -> tuple[tuple[float, ...], tuple[float, ...], list[int]]:
    """Mean and deviation of each channel, in [0, 1], and depths, over 512 images spread evenly.

    Every image counts the same.
    """
    chosen = np.unique(np.linspace(0, told.num_samples - 1, MEASURED).astype(np.int64))
    first, second, depths, failed = [], [], [], []
    for sample in Reader(told).read(chosen):
        try:
            image = decode(sample.data, min_height=MEASURED_SIDE, min_width=MEASURED_SIDE, bits=told.bits) / 255
        except Undecodable as error:
            failed.append(f"{sample.key}: {error}")
            continue
        depths.append(depth(sample.data))
        first.append(image.mean((0, 1)))
        second.append((image**2).mean((0, 1)))
    if not first:
        raise DataError(f"{told.root}: none of {len(chosen)} images tried can be decoded: {failed[0]}")
    if failed:
        remark(f"{told.root}: {len(failed)} of {len(chosen)} images tried cannot be decoded, the first: {failed[0]}")
    mean = np.mean(first, axis=0)
    std = np.sqrt(np.maximum(np.mean(second, axis=0) - mean**2, FLOOR**2))
    return _rounded(mean), _rounded(std), depths


def _rounded(values: NDArray[np.float64]) -> tuple[float, ...]:
    """The same on every processor: the last digits depend on the order in which it adds."""
    return tuple(np.round(values, DIGITS).tolist())


def check(url: str, *, progress: Progress = silent) -> list[str]:
    """All that is not as the manifest says, as `shard: key: what`. `progress` counts samples."""
    told, labelled = manifest.load(url), 0
    there = set(names(told.root))
    problems = [f"{name}: not in the manifest" for name in sorted(there - set(told.shards["name"].to_pylist()))]
    for shard, start in zip(told.shards.to_pylist(), told.starts.tolist(), strict=True):
        stop = start + shard["samples"]
        try:
            rows = told.rows.take(np.arange(start, stop))
        except DataError as error:
            return [*problems, str(error)]
        labelled += int((rows["label"] >= 0).sum())
        found = _problems(told, shard, rows) if shard["name"] in there else ["missing"]
        problems += [f"{shard['name']}: {problem}" for problem in found]
        progress(stop, told.num_samples)
    if labelled != told.num_labelled:
        problems.append(f"{labelled} samples are labelled, not {told.num_labelled}")
    return problems


def _problems(told: Manifest, shard: dict[str, Any], rows: Table) -> Iterator[str]:
    data = storage.read(told.root, shard["name"], remedy="put it back")
    if len(data) != shard["bytes"]:
        yield f"{len(data)} bytes, not {shard['bytes']}: cut or changed"
        return
    if tars.checksum(data) != shard["checksum"]:
        yield "its checksum is not that of the shard that was indexed: changed"
    blocks = (data[start : start + length] for start, length in zip(rows["start"], rows["length"], strict=True))
    with ThreadPoolExecutor() as pool:
        yield from (flaw for flaw in pool.map(_flaw, blocks) if flaw)


def _flaw(block: bytes) -> str | None:
    try:
        key, image = tars.member(block)
    except ValueError as error:
        return f"not the sample that was indexed: {error}"
    try:
        decode(image, min_height=1, min_width=1)
    except Undecodable as error:
        return f"{key}: {error}"
    return None

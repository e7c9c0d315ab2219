"""Indexing of WebDataset shards into a manifest, and checks of shards against their manifest."""

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
from selfsup.pipelines.data.gather import SampleSpool
from selfsup.pipelines.data.manifest import Manifest, SampleReader
from selfsup.pipelines.data.rows import Table
from selfsup.pipelines.modalities.decode import DecodeError, decode, depth

logger = logging.getLogger(__name__)
Progress = Callable[[int, int], None]  # (done, total)
Remark = Callable[[str], None]

STATISTICS_IMAGES = 512  # for mean and deviation
STATISTICS_SIDE = 256  # pixels, about that of training images: the deviation falls with the resolution
SENSOR_BITS = 14  # most cameras and scanners have no more
SCANS = 4  # shards at a time
LABEL_MEMBERS = ".cls, .class, .label, .index, .txt, or in .json under label, cls or class"
COMPRESSED = re.compile(r"\.(tar\.\w+|tgz|tbz2?|txz|tzst|tlz)$", re.IGNORECASE)  # of shards, not of notes.txt.gz
DIGITS = 6  # of mean and deviation
MIN_STD = 1 / 255  # images of one flat color would divide by zero


def no_progress(done: int, total: int) -> None:
    """Show no progress."""


def no_remark(_: str) -> None:
    """Drop a remark."""


def index(
    url: str,
    *,
    out: str | None = None,
    bits: int | None = None,
    progress: Progress = no_progress,
    remark: Remark = logger.warning,
) -> Manifest:
    """Write the manifest of a folder of .tar shards, beside them or in `out`.

    Images are .jpg/.jpeg/.png/.webp, or else one of the rarer formats; labels are .cls, .class, .label or .json
    ("label", "cls" or "class"), or else .index or .txt where all samples have a number there; `classnames.txt` may name
    the classes. bits: number in use of images of 16 bits, see `check_bits`. progress: counts shards. remark: receives
    notes on ambiguous labels. A few shards at a time are in memory. Raises DataError for shards that are truncated,
    damaged or compressed, lie in sub-folders, or have incomplete samples.
    """
    root = urls.absolute(url)
    shards = list_shards(root)
    if not shards:
        raise DataError(f"{url}: no .tar file in it; to make shards of images, run `selfsup shards pack`")
    home = root if out is None else urls.absolute(out)
    return assemble(home, root, _scans(root, shards, progress), remark, bits=bits)


def list_shards(root: str) -> list[str]:
    """Return the names of the shards in a folder. Raises DataError for shards compressed or in sub-folders."""
    files, folders = storage.list_folder(root)
    if compressed := [name for name in files if COMPRESSED.search(name)]:
        more = f" and {len(compressed) - 1} more" if compressed[1:] else ""
        problem = "compressed, so that no sample can be read alone"
        raise DataError(f"{root}: {compressed[0]}{more}: {problem}; decompress with `gzip -d`")
    shards = [name for name in files if name.lower().endswith(".tar")]
    for folder in folders:
        if nested := storage.list_files(urls.join(root, folder), suffix=".tar", must_exist=False):
            remedy = "separate the two folders, then index each" if shards else "index each folder by itself"
            raise DataError(f"{root}: shards lie in {folder}/{', too' if shards else ''} ({nested[0]} ...): {remedy}")
    return shards


def _scans(root: str, shards: list[str], progress: Progress) -> Iterator[tars.ShardScan]:
    with ThreadPoolExecutor(SCANS) as pool:
        for start in range(0, len(shards), SCANS):
            names = shards[start : start + SCANS]
            for done, content in enumerate(pool.map(partial(scan, root), names), start=start + 1):
                if not len(content.samples):
                    raise DataError(f"{urls.join(root, content.name)}: holds no samples; remove it")
                progress(done, len(shards))
                yield content


def scan(root: str, name: str) -> tars.ShardScan:
    data = storage.read(root, name, remedy="put it back")
    try:
        return tars.scan(data, name=name)
    except DataError as error:
        raise DataError(f"{root}/{error}") from error


def assemble(
    home: str, root: str, scans: Iterable[tars.ShardScan], remark: Remark, *, bits: int | None = None
) -> Manifest:
    """Write the manifest of scanned shards to `home`; its head last, once samples can be read through the rest.

    Labels can be numbered only when all are known; until then, samples wait in a temporary file.
    """
    with TemporaryFile() as file:
        spool = SampleSpool(file)
        for content in scans:
            spool.add(content)
        known = classes.read_names(root)
        kind = classes.label_kind(spool.labels, spool.num_samples, known)
        numbers, names = classes.number_classes(spool.labels[kind], known)
        table = pa.table([pa.array(column) for column in zip(*spool.rows, strict=True)], schema=manifest.SHARD_ROW)
        summary = manifest.write_tables(home, table, partial(spool.read, kind, numbers))
    for text in _remarks(spool, kind, known, summary.num_labelled):
        remark(f"{root}: {text}")
    draft = Manifest(
        home=home,
        root=root,
        digest="",
        rows_digest=summary.digest,
        num_samples=spool.num_samples,
        num_labelled=summary.num_labelled,
        fields=tuple(sorted(spool.fields)),
        classes=names,
        mean=(),
        std=(),
        shards=table,
        bits=None if bits == 16 else bits,
    )
    try:
        mean, std, depths = image_statistics(draft, remark)
        check_bits(root, bits, depths)
    except DataError:
        manifest.remove_tables(home)
        raise
    return manifest.write_head(replace(draft, mean=mean, std=std))


def _remarks(spool: SampleSpool, kind: str, known: tuple[str, ...], labelled: int) -> Iterator[str]:
    if spool.num_unread:
        yield f"{spool.num_unread} labels cannot be read and count as none, such as {spool.unread[0]}"
    yield from classes.remarks(spool.labels, kind, spool.num_samples, known)
    if not labelled:
        yield f"no labels; they are read from {LABEL_MEMBERS}, and these shards hold {', '.join(sorted(spool.fields))}"


def check_bits(place: str, bits: int | None, depths: Iterable[int]) -> None:
    """Raise DataError where images of 16 bits use no more than a sensor's 14, and `bits` does not say which is white.

    They may be dark, or have fewer bits. depths: see `decode.depth`.
    """
    used = max(depths, default=0)
    if bits is None and 0 < used <= SENSOR_BITS:
        options = f"--bits {max(used, 8)} if that is white, or --bits 16 if the images are dark"
        raise DataError(f"{place}: images of 16 bits hold no value of more than {used} bits; add {options}")


def image_statistics(manifest: Manifest, remark: Remark) -> tuple[tuple[float, ...], tuple[float, ...], list[int]]:
    """Return mean and deviation of each channel, in [0, 1], and depths, over 512 images spread evenly.

    Every image has the same weight.
    """
    index = np.unique(np.linspace(0, manifest.num_samples - 1, STATISTICS_IMAGES).astype(np.int64))
    first, second, depths, failures = [], [], [], []
    for sample in SampleReader(manifest).read(index):
        try:
            image = decode(sample.data, min_height=STATISTICS_SIDE, min_width=STATISTICS_SIDE, bits=manifest.bits) / 255
        except DecodeError as error:
            failures.append(f"{sample.key}: {error}")
            continue
        depths.append(depth(sample.data))
        first.append(image.mean((0, 1)))
        second.append((image**2).mean((0, 1)))
    if not first:
        raise DataError(f"{manifest.root}: none of {len(index)} images tried can be decoded: {failures[0]}")
    if failures:
        counts = f"{len(failures)} of {len(index)} images tried cannot be decoded"
        remark(f"{manifest.root}: {counts}, the first: {failures[0]}")
    mean = np.mean(first, axis=0)
    std = np.sqrt(np.maximum(np.mean(second, axis=0) - mean**2, MIN_STD**2))
    return _rounded(mean), _rounded(std), depths


def _rounded(values: NDArray[np.float64]) -> tuple[float, ...]:
    """Return values rounded to be equal on every processor: the last digits depend on the order of additions."""
    return tuple(np.round(values, DIGITS).tolist())


def check(url: str, *, progress: Progress = no_progress) -> list[str]:
    """Return what differs from the manifest, as `shard: key: problem`. progress: counts samples."""
    expected, labelled = manifest.load(url), 0
    present = set(list_shards(expected.root))
    problems = [f"{name}: not in the manifest" for name in sorted(present - set(expected.shards["name"].to_pylist()))]
    for shard, start in zip(expected.shards.to_pylist(), expected.starts.tolist(), strict=True):
        stop = start + shard["samples"]
        try:
            rows = expected.rows.take(np.arange(start, stop))
        except DataError as error:
            return [*problems, str(error)]
        labelled += int((rows["label"] >= 0).sum())
        own = _problems(expected.root, shard, rows) if shard["name"] in present else ["missing"]
        problems += [f"{shard['name']}: {problem}" for problem in own]
        progress(stop, expected.num_samples)
    if labelled != expected.num_labelled:
        problems.append(f"{labelled} samples are labelled, not {expected.num_labelled}")
    return problems


def _problems(root: str, shard: dict[str, Any], rows: Table) -> Iterator[str]:
    data = storage.read(root, shard["name"], remedy="put it back")
    if len(data) != shard["bytes"]:
        yield f"{len(data)} bytes, not {shard['bytes']}: truncated or changed"
        return
    if tars.checksum(data) != shard["checksum"]:
        yield "changed: its checksum is not that of the shard that was indexed"
    blocks = (data[start : start + length] for start, length in zip(rows["start"], rows["length"], strict=True))
    with ThreadPoolExecutor() as pool:
        yield from (problem for problem in pool.map(_sample_problem, blocks) if problem)


def _sample_problem(block: bytes) -> str | None:
    try:
        key, image = tars.parse_member(block)
    except ValueError as error:
        return f"not the sample that was indexed: {error}"
    try:
        decode(image, min_height=1, min_width=1)
    except DecodeError as error:
        return f"{key}: {error}"
    return None

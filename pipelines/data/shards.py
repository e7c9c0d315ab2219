"""Indexing of WebDataset shards into a manifest, and checks of shards against their manifest."""

import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from tempfile import TemporaryFile
from types import MappingProxyType
from typing import Any

import numpy as np
import pyarrow as pa

from selfsup import modality
from selfsup.errors import DataError
from selfsup.modality import DecodeError, Reading
from selfsup.pipelines.data import annotation, classes, manifest, manifest_writer, storage, tars, urls
from selfsup.pipelines.data.gather import SampleSpool
from selfsup.pipelines.data.manifest import Manifest
from selfsup.pipelines.data.reader import SampleReader
from selfsup.pipelines.data.rows import Table
from selfsup.pipelines.data.shard_rows import SHARD_ROW

logger = logging.getLogger(__name__)
Progress = Callable[[int, int], None]  # (done, total)
Remark = Callable[[str], None]
Readings = Mapping[str, Any]  # modality -> a Reading of it

STATISTICS_SAMPLES = 512  # for mean and deviation
SCANS = 4  # shards at a time
LABEL_MEMBERS = ".cls, .class, .label, .index, .txt, or in .json under label, cls or class"
COMPRESSED = re.compile(r"\.(tar\.\w+|tgz|tbz2?|txz|tzst|tlz)$", re.IGNORECASE)  # of shards, not of notes.txt.gz


def no_progress(done: int, total: int) -> None:
    """Show no progress."""


def no_remark(_: str) -> None:
    """Drop a remark."""


def index(
    url: str,
    *,
    out: str | None = None,
    reading: Readings = MappingProxyType({}),
    progress: Progress = no_progress,
    remark: Remark = logger.warning,
) -> Manifest:
    """Write the manifest of a folder of .tar shards, beside them or in `out`.

    Fields are the modalities that all samples have, by their suffixes, or else the one that most have; labels are .cls,
    .class, .label or .json ("label", "cls" or "class"), or else .index or .txt where all samples have a number there;
    `classnames.txt` may name the classes. reading: modality -> how its values are read. progress: counts shards.
    remark: receives notes on ambiguous labels. A few shards at a time are in memory. Raises DataError for shards that
    are truncated, damaged or compressed, lie in sub-folders, or have incomplete samples.
    """
    root = urls.absolute(url)
    shards = list_shards(root)
    if not shards:
        raise DataError(f"{url}: no .tar file in it; to make shards of files, run `selfsup shards pack`")
    home = root if out is None else urls.absolute(out)
    return assemble(home, root, _scans(root, shards, progress), remark, reading)


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
    home: str,
    root: str,
    scans: Iterable[tars.ShardScan],
    remark: Remark,
    reading: Readings = MappingProxyType({}),
) -> Manifest:
    """Write the manifest of scanned shards to `home`; its head last, once samples can be read through the rest."""
    draft = _draft(home, root, scans, remark, reading)
    try:
        fields = {name: statistics(draft, name, remark) for name in draft.fields}
        readings = dict(_beside(draft, remark))
    except DataError:
        manifest_writer.remove_tables(home)
        raise
    unread = [name for name in draft.beside if name in modality.names() and name not in readings]
    manifest_writer.remove_beside(home, unread)
    beside = {name: digest for name, digest in draft.beside.items() if name not in unread}
    lacking = {name: number for name, number in draft.lacking.items() if name not in unread}
    whole = replace(draft, fields=fields, beside=beside, lacking=lacking, readings=readings)
    return manifest_writer.write_head(whole)


def _beside(draft: Manifest, remark: Remark) -> Iterator[tuple[str, Any]]:
    """Yield the Stats of what lies beside samples but could stand alone. What cannot be read is left out."""
    for name in draft.beside:
        if name in modality.names():
            try:
                yield name, statistics(replace(draft, readings={name: modality.load(name).Reading()}), name, remark)
            except DataError as error:
                remark(f"{error}; {name} is left out")


def _draft(home: str, root: str, scans: Iterable[tars.ShardScan], remark: Remark, reading: Readings) -> Manifest:
    """Write the tables of a manifest; return it without digest and statistics.

    Labels can be numbered only when all are known; until then, samples wait in a temporary file.
    """
    with TemporaryFile() as file:
        spool = SampleSpool(file)
        for content in scans:
            spool.add(content)
        known = classes.read_names(root)
        kind = classes.label_kind(spool.labels, spool.num_samples, known)
        numbers, names = classes.number_classes(spool.labels[kind], known)
        table = pa.table([pa.array(column) for column in zip(*spool.rows, strict=True)], schema=SHARD_ROW)
        fields = {name: reading.get(name) or modality.load(name).Reading() for name in spool.complete}
        parts = [*fields, *(annotation.SUFFIXES[name] for name in spool.annotations)]
        blocks = partial(spool.read, kind, numbers)
        summary, beside = manifest_writer.write_tables(home, table, blocks, parts, spool.beside)
    for text in _remarks(spool, kind, known, summary.num_labelled):
        remark(f"{root}: {text}")
    return Manifest(
        home=home,
        root=root,
        digest="",
        rows_digest=summary.digest,
        num_samples=spool.num_samples,
        num_labelled=summary.num_labelled,
        members=tuple(sorted(spool.members)),
        classes=names,
        fields=fields,
        annotations=spool.annotations,
        beside=beside,
        lacking=spool.lacking,
        shards=table,
    )


def _remarks(spool: SampleSpool, kind: str, known: tuple[str, ...], labelled: int) -> Iterator[str]:
    parts = [name for name in reversed(spool.having) if name not in modality.companions()]
    for name, number in {part.partition(".")[0]: spool.having[part] for part in parts}.items():
        if 0 < number < spool.num_samples:
            yield f"{number} of {spool.num_samples} samples have {name}; `stream.lacking` says what becomes of others"
    if spool.num_unread:
        yield f"{spool.num_unread} labels cannot be read and count as none, such as {spool.unread[0]}"
    yield from classes.remarks(spool.labels, kind, spool.num_samples, known)
    if not labelled:
        yield f"no labels; they are read from {LABEL_MEMBERS}, and these shards hold {', '.join(sorted(spool.members))}"


def statistics(manifest: Manifest, field: str, remark: Remark) -> Any:
    """Return the Stats of a field, over 512 of those who have it, spread evenly.

    Raises DataError where they are read wrongly.
    """
    manifest = manifest.having(field)
    index = np.unique(np.linspace(0, manifest.num_samples - 1, STATISTICS_SAMPLES).astype(np.int64))
    kind, reading, measures, failures = modality.ready(field), manifest.reading(field), list[Any](), list[str]()
    for sample in SampleReader(manifest, field).read(index):
        try:
            measures.append(kind.measure(sample.data, reading))
        except DecodeError as error:
            failures.append(f"{sample.key}: {error}")
    if not measures:
        raise DataError(f"{manifest.root}: none of {len(index)} samples tried can be decoded: {failures[0]}")
    if failures:
        counts = f"{len(failures)} of {len(index)} samples tried cannot be decoded"
        remark(f"{manifest.root}: {counts}, the first: {failures[0]}")
    try:
        return kind.statistics(measures, reading)
    except DataError as error:
        raise DataError(f"{manifest.root}: {error}") from error


def check(url: str, *, progress: Progress = no_progress) -> list[str]:
    """Return what differs from the manifest, as `shard: key: problem`. progress: counts samples."""
    expected, labelled = manifest.load(url), 0
    present = set(list_shards(expected.root))
    problems = [f"{name}: not in the manifest" for name in sorted(present - set(expected.shards["name"].to_pylist()))]
    for shard, start in zip(expected.shards.to_pylist(), expected.starts.tolist(), strict=True):
        stop = start + shard["samples"]
        try:
            numbers = np.arange(start, stop)
            tables = {name: expected.table(name) for name in (*expected.fields, *filter(_is_modality, expected.beside))}
            rows = {name: table.take(numbers, column) for name, (table, column) in tables.items()}
        except DataError as error:
            return [*problems, str(error)]
        labelled += int((next(iter(rows.values()))["label"] >= 0).sum())
        own = _problems(expected, shard, rows) if shard["name"] in present else ["missing"]
        problems += [f"{shard['name']}: {problem}" for problem in own]
        progress(stop, expected.num_samples)
    if labelled != expected.num_labelled:
        problems.append(f"{labelled} samples are labelled, not {expected.num_labelled}")
    return problems


def _is_modality(name: str) -> bool:
    return name in (*modality.names(), *modality.companions())


def _problems(expected: Manifest, shard: dict[str, Any], rows: Mapping[str, Table]) -> Iterator[str]:
    """Yield the problems of a shard. rows: of its samples, by field."""
    data = storage.read(expected.root, shard["name"], remedy="put it back")
    if len(data) != shard["bytes"]:
        yield f"{len(data)} bytes, not {shard['bytes']}: truncated or changed"
        return
    if tars.checksum(data) != shard["checksum"]:
        yield "changed: its checksum is not that of the shard that was indexed"
    with ThreadPoolExecutor() as pool:
        for name, table in rows.items():
            blocks = (
                data[start : start + length]
                for start, length in zip(table["start"], table["length"], strict=True)
                if length >= 0
            )
            check = partial(_sample_problem, name, expected.reading(name))
            yield from (problem for problem in pool.map(check, blocks) if problem)


def _sample_problem(name: str, reading: Reading, block: bytes) -> str | None:
    try:
        key, data = tars.parse_member(block)
    except ValueError as error:
        return f"not the sample that was indexed: {error}"
    try:
        modality.ready(name).check(data, reading)
    except DecodeError as error:
        return f"{key}: {error}"
    return None

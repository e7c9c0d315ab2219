"""Data sets of WebDataset shards: write the manifest of one, whoever made it, and check one against its manifest."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from tempfile import TemporaryFile
from typing import IO, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from selfsup.errors import DataError
from selfsup.pipelines import manifest, storage, tars
from selfsup.pipelines.decode import Undecodable, decode
from selfsup.pipelines.manifest import Manifest, Reader
from selfsup.pipelines.rows import ROW, Table

Progress = Callable[[int, int], None]  # done, in total

CLASSES = "classnames.txt"  # beside the shards, a name a line, where CLIP's benchmarks have it, too
MAX_CLASSES = 2**20  # a greater number is the id of something
MEASURED = 512  # images for mean and deviation
MEASURED_SIDE = 256  # pixels, about what is cut into crops: the deviation falls with the resolution
SCANNED = 4  # shards at a time
BLOCK = 2**20  # rows in memory
DIGITS = 6  # of mean and deviation
FLOOR = 1 / 255  # of a deviation: to divide by that of one flat colour would be to divide by zero


def silent(done: int, total: int) -> None:
    """No progress shown."""


def index(url: str, *, out: str | None = None, progress: Progress = silent) -> Manifest:
    """Write the manifest of a folder of .tar shards, beside them or in `out`. `progress` counts shards.

    Images are .jpg/.jpeg/.png/.webp; labels .cls, .txt or .json ("label" or "cls"); a file `classnames.txt` names them.
    A few shards at a time are in memory. DataError for shards that are cut or damaged, or whose samples are not whole.
    """
    root = storage.absolute(url)
    names = storage.names(root, suffix=".tar")
    if not names:
        raise DataError(f"{url}: no .tar file in it; to make shards of images, run `selfsup shards pack`")
    return assemble(root if out is None else storage.absolute(out), root, _scans(root, names, progress))


def _scans(root: str, names: list[str], progress: Progress) -> Iterator[tars.Scan]:
    with ThreadPoolExecutor(SCANNED) as pool:
        for start in range(0, len(names), SCANNED):
            some = names[start : start + SCANNED]
            for done, found in enumerate(pool.map(partial(scan, root), some), start=start + 1):
                if not len(found.samples):
                    raise DataError(f"{storage.within(root, found.name)}: holds no samples; remove it")
                progress(done, len(names))
                yield found


def scan(root: str, name: str) -> tars.Scan:
    data = storage.read(root, name, remedy="put it back")
    try:
        return tars.scan(data, name=name)
    except DataError as error:
        raise DataError(f"{root}/{error}") from error


def assemble(home: str, root: str, scans: Iterable[tars.Scan]) -> Manifest:
    """Write the manifest of scanned shards to `home`; its head last, once the rest can be read through it.

    Labels are numbered when all are known: until then, samples wait in a temporary file.
    """
    with TemporaryFile() as spool:
        rows, labels, fields = _spooled(scans, spool)
        numbers, classes = _numbered(labels, _names(root))
        table = pa.table([pa.array(column) for column in zip(*rows, strict=True)], schema=manifest.SHARD_ROW)
        written = manifest.write_tables(home, table, partial(_labelled, spool, numbers))
    draft = Manifest(
        home=home,
        root=root,
        digest="",
        rows_digest=written.digest,
        num_samples=sum(row[1] for row in rows),
        num_labelled=written.num_labelled,
        fields=tuple(sorted(fields)),
        classes=classes,
        mean=(),
        std=(),
        shards=table,
    )
    mean, std = moments(draft)
    return manifest.write_head(replace(draft, mean=mean, std=std))


def _spooled(scans: Iterable[tars.Scan], spool: IO[bytes]) -> tuple[list[tuple[Any, ...]], list[str], set[str]]:
    """Rows of the shards, labels as they stand there, fields. Samples go to `spool`, labelled by place among these."""
    rows, labels, fields = [], dict[str, int](), set[str]()
    for each in scans:
        table = np.empty(len(each.samples), ROW)
        told = each.samples["label"].to_pylist()
        table["start"], table["length"] = (each.samples[name].to_numpy() for name in ("start", "length"))
        table["label"] = [-1 if text is None else labels.setdefault(text, len(labels)) for text in told]
        spool.write(table.tobytes())
        rows.append((each.name, len(table), each.size, each.checksum))
        fields |= each.fields
        if len(labels) > MAX_CLASSES:
            raise DataError(f"{each.name}: by here more than {MAX_CLASSES} labels, such as {told[0]!r}: no classes")
    return rows, list(labels), fields


def _labelled(spool: IO[bytes], numbers: NDArray[np.int32]) -> Iterator[Table]:
    spool.seek(0)
    while data := spool.read(BLOCK * ROW.itemsize):
        table = np.frombuffer(data, ROW).copy()
        labelled = table["label"] >= 0
        table["label"][labelled] = numbers[table["label"][labelled]]
        yield table


def _names(root: str) -> tuple[str, ...]:
    if CLASSES not in storage.names(root, suffix=".txt"):
        return ()
    return tuple(storage.read(root, CLASSES, remedy="").decode().splitlines())


def _numbered(labels: list[str], names: tuple[str, ...]) -> tuple[NDArray[np.int32], tuple[str, ...]]:
    """Labels as they stand in the shards -> the number of the class of each, and the classes' names."""
    known = sorted(labels)
    if all(text.isdecimal() for text in known):
        number = {text: int(text) for text in known}
        classes = names or tuple(str(each) for each in range(min(max(number.values(), default=-1) + 1, MAX_CLASSES)))
    else:
        classes = names or tuple(known)
        place = {name: at for at, name in enumerate(classes)}
        number = {text: place.get(text, len(classes)) for text in known}
    if wrong := [text for text in known if number[text] >= len(classes)]:
        raise DataError(f"label {wrong[0]!r} is none of {len(classes)} classes; {CLASSES} beside the shards names them")
    return np.array([number[text] for text in labels], np.int32), classes


def moments(told: Manifest) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation of each channel, in [0, 1], over 512 images spread evenly; every image counts the same."""
    chosen = np.unique(np.linspace(0, told.num_samples - 1, MEASURED).astype(np.int64))
    first, second = [], []
    for sample in Reader(told).read(chosen):
        try:
            image = decode(sample.data, min_height=MEASURED_SIDE, min_width=MEASURED_SIDE) / 255
        except Undecodable:
            continue
        first.append(image.mean((0, 1)))
        second.append((image**2).mean((0, 1)))
    if not first:
        raise DataError(f"{told.root}: none of {len(chosen)} images tried can be decoded")
    mean = np.mean(first, axis=0)
    std = np.sqrt(np.maximum(np.mean(second, axis=0) - mean**2, FLOOR**2))
    return _rounded(mean), _rounded(std)


def _rounded(values: NDArray[np.float64]) -> tuple[float, ...]:
    """The same on every processor: the last digits depend on the order in which it adds."""
    return tuple(np.round(values, DIGITS).tolist())


def check(url: str, *, progress: Progress = silent) -> list[str]:
    """All that is not as the manifest says, as `shard: key: what`. `progress` counts samples."""
    told, labelled = manifest.load(url), 0
    there = set(storage.names(told.root, suffix=".tar"))
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

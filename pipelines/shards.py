"""Data sets of WebDataset shards: write the manifest of one, whoever made it, and check one against its manifest."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from selfsup.errors import DataError
from selfsup.pipelines import manifest, storage, tars
from selfsup.pipelines.decode import Undecodable, decode
from selfsup.pipelines.manifest import Manifest, Reader

Progress = Callable[[int, int], None]  # done, in total

CLASSES = "classnames.txt"  # beside the shards, a name a line, where CLIP's benchmarks have it, too
MAX_CLASSES = 2**20  # a greater number is the id of something
MEASURED = 512  # images for mean and deviation
MEASURED_SIDE = 256  # pixels, about what is cut into crops: the deviation falls with the resolution
FLOOR = 1 / 255  # of a deviation: to divide by that of one flat colour would be to divide by zero


def silent(done: int, total: int) -> None:
    """No progress shown."""


def index(url: str, *, out: str | None = None, progress: Progress = silent) -> Manifest:
    """Write the manifest of a folder of .tar shards, beside them or in `out`. `progress` counts shards.

    Images are .jpg/.jpeg/.png/.webp; labels .cls, .txt or .json ("label" or "cls"); a file `classnames.txt` names them.
    One shard at a time is in memory. DataError for shards that are cut or damaged, or whose samples are not whole.
    """
    root = storage.absolute(url)
    names = storage.names(root, suffix=".tar")
    if not names:
        raise DataError(f"{url}: no .tar file in it; to make shards of images, run `selfsup shards pack`")
    scans = []
    for done, name in enumerate(names, start=1):
        scans.append(scan(root, name))
        if not len(scans[-1].samples):
            raise DataError(f"{root}/{name}: holds no samples; remove it")
        progress(done, len(names))
    return assemble(root if out is None else storage.absolute(out), root, scans)


def scan(root: str, name: str) -> tars.Scan:
    data = storage.read(root, name, remedy="put it back")
    try:
        return tars.scan(data, name=name)
    except DataError as error:
        raise DataError(f"{root}/{error}") from error


def assemble(home: str, root: str, scans: Sequence[tars.Scan]) -> Manifest:
    """Write the manifest of scanned shards to `home`; its head last, once the rest can be read through it."""
    labels, classes = _numbered([each.samples["label"] for each in scans], _names(root))
    rows = [(each.name, len(each.samples), each.size, each.checksum) for each in scans]
    columns = zip(*rows, strict=True)
    table = pa.table([pa.array(column) for column in columns], schema=manifest.SHARD_ROW)
    samples = [
        each.samples.set_column(each.samples.column_names.index("label"), "label", label).add_column(
            0, "shard", pa.array(np.full(len(label), number, np.int32))
        )
        for number, (each, label) in enumerate(zip(scans, labels, strict=True))
    ]
    manifest.write_tables(home, table, samples)
    draft = Manifest(
        home=home,
        root=root,
        digest=manifest.digest(table),
        num_samples=sum(row[1] for row in rows),
        fields=tuple(sorted(frozenset().union(*(each.fields for each in scans)))),
        classes=classes,
        mean=(),
        std=(),
        shards=table,
    )
    mean, std = moments(draft)
    made = replace(draft, mean=mean, std=std)
    manifest.write_head(made)
    return made


def _names(root: str) -> tuple[str, ...]:
    if CLASSES not in storage.names(root, suffix=".txt"):
        return ()
    text: str = storage.read(root, CLASSES, remedy="").to_pybytes().decode()
    return tuple(text.splitlines())


def _numbered(labels: list[pa.ChunkedArray], names: tuple[str, ...]) -> tuple[list[pa.ChunkedArray], tuple[str, ...]]:
    """Labels as they stand in the shards -> the numbers of classes, and the classes' names."""
    known = sorted({text for column in labels for text in pc.unique(column).to_pylist() if text is not None})
    if all(text.isdecimal() for text in known):
        number = [int(text) for text in known]
        classes = names or tuple(str(each) for each in range(min(max(number, default=-1) + 1, MAX_CLASSES)))
    else:
        classes = names or tuple(known)
        number = [classes.index(text) if text in classes else len(classes) for text in known]
    wrong = [text for text, each in zip(known, number, strict=True) if each >= len(classes)]
    if wrong:
        raise DataError(f"label {wrong[0]!r} is none of {len(classes)} classes; {CLASSES} beside the shards names them")
    numbers, texts = pa.array(number, pa.int32()), pa.array(known, pa.string())
    return [numbers.take(pc.index_in(column.combine_chunks(), texts)) for column in labels], classes


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
    return tuple(mean.tolist()), tuple(std.tolist())


def check(url: str, *, progress: Progress = silent) -> list[str]:
    """All that is not as the manifest says, as `shard: key: what`. `progress` counts samples."""
    told = manifest.load(url)
    listed = told.shards["name"].to_pylist()
    strays = sorted(set(storage.names(told.root, suffix=".tar")) - set(listed))
    problems = [f"{name}: not in the manifest" for name in strays]
    reader = Reader(told)
    for shard, start in zip(told.shards.to_pylist(), told.starts.tolist(), strict=True):
        samples = reader.locate(np.arange(start, start + shard["samples"]))
        problems += [f"{shard['name']}: {problem}" for problem in _problems(told.root, shard, samples.to_pylist())]
        progress(start + shard["samples"], told.num_samples)
    return problems


def _problems(root: str, shard: dict[str, Any], samples: list[dict[str, Any]]) -> Iterator[str]:
    if shard["name"] not in storage.names(root, suffix=".tar"):
        yield "missing"
        return
    data = storage.read(root, shard["name"], remedy="put it back")
    if data.size != shard["bytes"]:
        yield f"{data.size} bytes, not {shard['bytes']}: cut or changed"
        return
    if tars.checksum(data) != shard["checksum"]:
        yield "its checksum is not that of the shard that was indexed: changed"
    images = (data.slice(sample["offset"], sample["size"]).to_pybytes() for sample in samples)
    with ThreadPoolExecutor() as pool:
        for sample, flaw in zip(samples, pool.map(_flaw, images), strict=True):
            if flaw:
                yield f"{sample['key']}: {flaw}"


def _flaw(data: bytes) -> str | None:
    try:
        decode(data, min_height=1, min_width=1)
    except Undecodable as error:
        return str(error)
    return None

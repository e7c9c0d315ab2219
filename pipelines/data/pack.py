"""A folder of images -> WebDataset shards with a manifest."""

import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import chain, count
from pathlib import Path
from typing import NamedTuple

import numpy as np
import simplejpeg
from PIL import Image

from selfsup.errors import DataError
from selfsup.pipelines.data import head, shards, storage, tars, urls
from selfsup.pipelines.data.classes import FILE as CLASSNAMES
from selfsup.pipelines.data.folders import Walk
from selfsup.pipelines.data.manifest import Manifest
from selfsup.pipelines.data.shards import Progress, silent, unsaid
from selfsup.pipelines.modalities.decode import Pixels, Undecodable, decode, depth, dimensions

PART = 64  # images in flight at a time
DEEP = (".png", ".tif", ".tiff", ".pgm")  # which may have more than 8 bits
MEASURED = 256  # of these, whose depth is looked at


class Packed(NamedTuple):
    """A packed data set. Not in it are: skipped, images that cannot be decoded, and why; left_out: files by kind."""

    manifest: Manifest
    skipped: Mapping[str, str]
    left_out: Mapping[str, int]


class Source(NamedTuple):
    """An image to be packed. label: the place of its folder among the classes; None in a flat folder."""

    path: Path
    key: str
    label: int | None


@dataclass(frozen=True)
class Coding:
    """How images are coded. resize: pixels of the shorter side, at most. bits: as for `decode`."""

    resize: int | None
    quality: int
    bits: int | None = None

    def encode(self, path: Path) -> bytes:
        """An image file -> JPEG, its own bytes where nothing is to change. Undecodable where it cannot be decoded."""
        data = path.read_bytes()
        height, width = dimensions(data)
        short = min(height, width)
        side = min(short, self.resize or short)
        if data.startswith(b"\xff\xd8") and side == short:
            decode(data, min_height=1, min_width=1)  # the cheapest proof that it is whole
            return data
        large = 2 * side  # so that the last halving is antialiased
        image = decode(data, min_height=large, min_width=large, bits=self.bits)
        size = max(1, round(width * side / short)), max(1, round(height * side / short))
        return jpeg(np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC)), quality=self.quality)

    def tried(self, path: Path) -> bytes | Undecodable:
        """As `encode`; why not is returned."""
        try:
            return self.encode(path)
        except Undecodable as error:
            return error


def jpeg(image: Pixels, *, quality: int) -> bytes:
    """(H, W, 3) -> JPEG"""
    pixels = np.ascontiguousarray(image)
    return bytes(simplejpeg.encode_jpeg(pixels, quality=quality, colorspace="RGB", colorsubsampling="420"))


def pack(
    images: str | Path,
    out: str | Path,
    *,
    resize: int | None = None,
    quality: int = 92,
    shard_size: int = 1000,
    bits: int | None = None,
    progress: Progress = silent,
) -> Packed:
    """A folder a class, or a flat folder, of images -> shards of `shard_size` images, and a manifest.

    Images are .jpg/.jpeg/.png/.webp or of a rarer format, of which it is the first frame; links are followed.
    `out` is a folder or a URL; one shard at a time is in memory.
    `resize` is the shorter side in pixels; nothing is enlarged, and a JPEG that keeps its size keeps its bytes. The
    same images give the same shards, byte for byte; shards that an interrupted packing finished are kept. `progress`
    counts images. DataError where no image can be decoded, or where `out` holds shards that were not packed here.
    """
    folder, place = Path(images).absolute(), urls.absolute(str(out))
    try:
        walk = Walk(folder)
        sources, classes = _sources(folder, walk)
        shards.settled(str(folder), bits, [] if bits else _depths(sources))
        coding = Coding(resize, quality, None if bits == 16 else bits)
        found = _prepare(place, folder, classes)
        scans = []
        for number, start in enumerate(range(0, len(sources), shard_size)):
            part = sources[start : start + shard_size]
            tick = partial(_ahead, progress, start, len(sources))
            name = f"{number:06d}.tar"
            scans.append(_shard(place, name, found.get(name), part, coding, tick))
        told, skipped = _sealed(folder, place, sources, coding, [scan for scan in scans if scan], found)
        return Packed(told, skipped, walk.left_out)
    except OSError as error:
        raise DataError(f"{images} cannot be packed into {out}: {error}") from error


def _ahead(progress: Progress, start: int, total: int, done: int) -> None:
    progress(start + done, total)


def _sources(folder: Path, walk: Walk) -> tuple[list[Source], list[str]]:
    """All images by class and path, and the classes: every folder, empty or not, so that splits agree on them."""
    if not folder.is_dir():
        raise DataError(f"{folder}: not a folder; expected one of images")
    flat, folders = walk.files(folder), walk.folders(folder)
    inside = [walk.images(each) for each in folders]
    if bool(flat) == any(inside):
        others = ", ".join(f"{number} {kind}" for kind, number in sorted(walk.left_out.items()))
        none = f"no {'/'.join(tars.IMAGES)} image in it{f' (but {others})' if others else ''}"
        what = "images both in it and in folders of it" if flat else none
        raise DataError(f"{folder}: {what}; expected a folder a class, or all images in one folder")
    labelled: list[tuple[Path, int | None]] = [(path, None) for path in flat]
    labelled += [(path, label) for label, paths in enumerate(inside) for path in paths]
    keys = _keys([path.relative_to(folder) for path, _ in labelled])
    sources = [Source(path, key, label) for (path, label), key in zip(labelled, keys, strict=True)]
    return sources, [] if flat else [each.name for each in folders]


def _keys(paths: list[Path]) -> list[str]:
    """Names without dots, at which WebDataset would cut them, made unique: a.jpg and a.png -> a, a-2."""
    taken: dict[str, None] = {}
    for path in paths:
        key = path.with_name(path.stem.replace(".", "_")).as_posix()
        numbered = (f"{key}-{number}" for number in count(2))
        taken[next(each for each in chain([key], numbered) if each not in taken)] = None
    return list(taken)


def _prepare(out: str, folder: Path, classes: list[str]) -> dict[str, str]:
    """The marks of the shards that are there."""
    if not urls.is_remote(out) and Path(out).is_relative_to(folder):
        raise DataError(f"{out} lies inside {folder}, the images to pack; choose another place")
    found = {name: _mark_in(out, name) for name in storage.names(out, suffix=".tar", there=False)}
    storage.remove(out, head.NAME)  # from here on it may not be true
    storage.remove(out, CLASSNAMES)
    if classes:
        storage.write(out, CLASSNAMES, "".join(f"{name}\n" for name in classes).encode())
    return found


def _mark_in(out: str, name: str) -> str:
    file = storage.opened(out, name, remedy="put it back")
    if (mark := tars.mark(file.read(0, min(file.size, tars.HEADERS)))) is None:
        raise DataError(f"{file.url}: was not packed here and would be lost; choose another place for the shards")
    return mark


def _shard(
    out: str, name: str, found: str | None, sources: list[Source], coding: Coding, tick: Callable[[int], None]
) -> tars.Scan | None:
    """None where no image can be decoded. found: the mark of what is there."""
    mark = _mark(sources, coding)
    if found == mark:
        with suppress(DataError):  # damaged since
            scan = shards.scan(out, name)
            tick(len(sources))
            return scan
    data = tars.packed(_coded(sources, coding, tick), mark=mark)
    if data:
        storage.write(out, name, data)
    return tars.scan(data, name=name) if data else None


def _mark(sources: list[Source], coding: Coding) -> str:
    """A digest of all that a shard is made from."""
    told = f"Coding(resize={coding.resize}, quality={coding.quality})"  # as before there were bits
    told += f", bits={coding.bits}" if coding.bits else ""
    total = hashlib.blake2b(told.encode(), digest_size=16)
    for source in sources:
        total.update(repr((source.key, source.label)).encode())
        total.update(hashlib.blake2b(source.path.read_bytes()).digest())
    return total.hexdigest()


def _coded(
    sources: list[Source], coding: Coding, tick: Callable[[int], None]
) -> Iterator[tuple[str, bytes, int | None]]:
    with ThreadPoolExecutor() as pool:
        for start in range(0, len(sources), PART):
            part = sources[start : start + PART]
            for source, data in zip(part, pool.map(coding.tried, [each.path for each in part]), strict=True):
                if isinstance(data, bytes):
                    yield source.key, data, source.label
            tick(start + len(part))


def _depths(sources: list[Source]) -> list[int]:
    deep = [source.path for source in sources if source.path.suffix.lower() in DEEP]
    return [_depth(path) for path in deep[:: max(1, len(deep) // MEASURED)]]


def _depth(path: Path) -> int:
    try:
        return depth(path.read_bytes())
    except Undecodable:
        return 0


def _sealed(
    folder: Path, out: str, sources: list[Source], coding: Coding, scans: list[tars.Scan], found: Collection[str]
) -> tuple[Manifest, Mapping[str, str]]:
    kept = {key for scan in scans for key in scan.samples["key"].to_pylist()}
    skipped = {str(source.path): str(coding.tried(source.path)) for source in sources if source.key not in kept}
    for name in set(found) - {scan.name for scan in scans}:
        storage.remove(out, name)  # of an earlier packing, or without a single image
    if not scans:
        name, why = next(iter(skipped.items()))
        raise DataError(f"{folder}: not one of its {len(sources)} images can be decoded; {name}: {why}")
    return shards.assemble(out, out, scans, unsaid), skipped

"""Packing of a folder of images into WebDataset shards with a manifest."""

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
from selfsup.pipelines.data.classes import NAMES_FILE as CLASSNAMES
from selfsup.pipelines.data.folders import Walk
from selfsup.pipelines.data.manifest import Manifest
from selfsup.pipelines.data.shards import Progress, no_progress, no_remark
from selfsup.pipelines.modalities.decode import DecodeError, Pixels, decode, depth, dimensions

BATCH = 64  # images encoded at a time
DEEP = (".png", ".tif", ".tiff", ".pgm")  # suffixes of images that may have more than 8 bits
DEPTH_IMAGES = 256  # of these, whose depth is measured


class PackResult(NamedTuple):
    """A packed data set. skipped: path -> reason, of undecodable images; left_out: number of other files by kind."""

    manifest: Manifest
    skipped: Mapping[str, str]
    left_out: Mapping[str, int]


class PackSource(NamedTuple):
    """An image file to be packed. label: the number of its folder among the classes; None in a flat folder."""

    path: Path
    key: str
    label: int | None


@dataclass(frozen=True)
class ImageCoding:
    """How images are encoded. resize: maximum of the shorter side in pixels. bits: see `decode`."""

    resize: int | None
    quality: int
    bits: int | None = None

    def encode(self, path: Path) -> bytes:
        """Return an image file as JPEG, unchanged where it is one of that size. Raises DecodeError."""
        data = path.read_bytes()
        height, width = dimensions(data)
        short = min(height, width)
        side = min(short, self.resize or short)
        if data.startswith(b"\xff\xd8") and side == short:
            decode(data, min_height=1, min_width=1)  # the cheapest proof that it is not truncated
            return data
        least = 2 * side  # so that the last halving is antialiased
        image = decode(data, min_height=least, min_width=least, bits=self.bits)
        size = max(1, round(width * side / short)), max(1, round(height * side / short))
        return jpeg(np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC)), quality=self.quality)

    def try_encode(self, path: Path) -> bytes | DecodeError:
        """Return what `encode` does, or the error that it raises."""
        try:
            return self.encode(path)
        except DecodeError as error:
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
    progress: Progress = no_progress,
) -> PackResult:
    """Pack a folder of images, flat or with a folder per class, into shards of `shard_size` images and a manifest.

    Images are .jpg/.jpeg/.png/.webp or of a rarer format, of which the first frame is taken; links are followed.
    out: a folder or URL; one shard at a time is in memory. resize: maximum of the shorter side in pixels; nothing is
    enlarged, and a JPEG that keeps its size keeps its bytes. progress: counts images. The same images give the same
    shards, byte for byte; shards that an interrupted call has finished are kept. Raises DataError where no image can be
    decoded, or where `out` holds shards that were not packed here.
    """
    folder, home = Path(images).absolute(), urls.absolute(str(out))
    try:
        walk = Walk(folder)
        sources, classes = _sources(folder, walk)
        shards.check_bits(str(folder), bits, [] if bits else _depths(sources))
        coding = ImageCoding(resize, quality, None if bits == 16 else bits)
        marks = _prepare(home, folder, classes)
        scans = []
        for number, start in enumerate(range(0, len(sources), shard_size)):
            part = sources[start : start + shard_size]
            tick = partial(_advance, progress, start, len(sources))
            name = f"{number:06d}.tar"
            scans.append(_write_shard(home, name, marks.get(name), part, coding, tick))
        manifest, skipped = _finish(folder, home, sources, coding, [scan for scan in scans if scan], marks)
        return PackResult(manifest, skipped, walk.left_out)
    except OSError as error:
        raise DataError(f"{images} cannot be packed into {out}: {error}") from error


def _advance(progress: Progress, start: int, total: int, done: int) -> None:
    progress(start + done, total)


def _sources(folder: Path, walk: Walk) -> tuple[list[PackSource], list[str]]:
    """Return all images by class and path, and the classes: all folders, also empty ones, so that splits agree."""
    if not folder.is_dir():
        raise DataError(f"{folder}: not a folder; expected one of images")
    flat, folders = walk.files(folder), walk.folders(folder)
    nested = [walk.images(path) for path in folders]
    if bool(flat) == any(nested):
        others = ", ".join(f"{number} {kind}" for kind, number in sorted(walk.left_out.items()))
        none = f"no {'/'.join(tars.IMAGES)} image in it{f' (but {others})' if others else ''}"
        problem = "images both in it and in folders of it" if flat else none
        raise DataError(f"{folder}: {problem}; expected a folder per class, or all images in one folder")
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
    coding: ImageCoding,
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


def _mark(sources: list[PackSource], coding: ImageCoding) -> str:
    """Return a digest of everything that a shard is made from."""
    settings = f"Coding(resize={coding.resize}, quality={coding.quality})"  # as in shards packed before
    settings += f", bits={coding.bits}" if coding.bits else ""
    total = hashlib.blake2b(settings.encode(), digest_size=16)
    for source in sources:
        total.update(repr((source.key, source.label)).encode())
        total.update(hashlib.blake2b(source.path.read_bytes()).digest())
    return total.hexdigest()


def _encode(
    sources: list[PackSource], coding: ImageCoding, tick: Callable[[int], None]
) -> Iterator[tuple[str, bytes, int | None]]:
    """Yield (key, JPEG, label) of all images that can be decoded."""
    with ThreadPoolExecutor() as pool:
        for start in range(0, len(sources), BATCH):
            batch = sources[start : start + BATCH]
            encoded = pool.map(coding.try_encode, [source.path for source in batch])
            for source, data in zip(batch, encoded, strict=True):
                if isinstance(data, bytes):
                    yield source.key, data, source.label
            tick(start + len(batch))


def _depths(sources: list[PackSource]) -> list[int]:
    paths = [source.path for source in sources if source.path.suffix.lower() in DEEP]
    return [_depth(path) for path in paths[:: max(1, len(paths) // DEPTH_IMAGES)]]


def _depth(path: Path) -> int:
    try:
        return depth(path.read_bytes())
    except DecodeError:
        return 0


def _finish(
    folder: Path,
    out: str,
    sources: list[PackSource],
    coding: ImageCoding,
    scans: list[tars.ShardScan],
    present: Collection[str],
) -> tuple[Manifest, Mapping[str, str]]:
    """Remove outdated shards and write the manifest; return it with the undecodable images and the reasons."""
    keys = {key for scan in scans for key in scan.samples["key"].to_pylist()}
    skipped = {str(source.path): str(coding.try_encode(source.path)) for source in sources if source.key not in keys}
    for name in set(present) - {scan.name for scan in scans}:
        storage.remove(out, name)  # of an earlier call, or without a single image
    if not scans:
        name, reason = next(iter(skipped.items()))
        raise DataError(f"{folder}: not one of its {len(sources)} images can be decoded; {name}: {reason}")
    return shards.assemble(out, out, scans, no_remark), skipped

"""Small data sets made from images that scikit-image and scikit-learn ship, or of nothing, without a download.

bundled://photos/train  4000 crops, 250 from each of 16 photographs; label: the photograph
bundled://photos/val     960 crops, 60 from each, of tiles that share no pixel with training crops
bundled://digits/train  1437 handwritten digits of 8x8 pixels, enlarged to 32x32
bundled://digits/val     360 others
bundled://scenes/train  1000 rendered scenes with segmentation, depth and a second view; see `scenes`
bundled://scenes/val     250 others, whose textures share no pixel with those of training scenes
bundled://miscaptioned   the same scenes, each with the caption of another one; bundled://tagged: with several labels
bundled://mixed/train    900 scenes, scenes with their depth, and clips, by turns; see `scenes.mixed`
bundled://mixed/val      240 others
bundled://motions/train  600 clips of such scenes, whose label is how the camera moves; see `scenes.motions`
bundled://motions/val    200 others; bundled://shuffled and bundled://still have the same ones shuffled, and of a frame
bundled://impacts/train  400 clips of objects that fall, with the sounds of their strikes; see `scenes.impacts`
bundled://impacts/val    120 others; bundled://silent and bundled://mismatched have no sounds, and those of others
bundled://sounds/train  1200 synthesised melodies of twelve classes; see `sounds`
bundled://sounds/val     360 others
bundled://solids/train   960 clouds of eight solids, in part of one side; see `solids`
bundled://solids/val     320 others
"""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import count, islice
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
from PIL import Image

from selfsup.errors import DataError
from selfsup.homes import fetch_data, publish
from selfsup.modality import ready
from selfsup.pipelines.data import scenes, solids, sounds
from selfsup.pipelines.data.annotated import pack_annotated
from selfsup.pipelines.data.head import VERSION
from selfsup.pipelines.data.pack import pack
from selfsup.pipelines.data.photographs import PHOTOS, SPLITS, photograph, tiles
from selfsup.pipelines.data.scenes import impacts, mixed, motions
from selfsup.pipelines.modalities.pixels.coding import jpeg
from selfsup.pipelines.modalities.pixels.levels import Pixels
from selfsup.progress import say
from selfsup.scratch import scratch

Images = Callable[[str], Iterator[tuple[str, Pixels]]]  # of a split
Files = Callable[[str], Iterator[tuple[str, bytes]]]  # of a split
Maker = Callable[[str, Path, Path], None]  # packs a split, given a folder to work in, and one for the shards
CROP = 64  # pixels
PER_PHOTO = {"train": 250, "val": 60}
ZOOM = (0.6, 1.0)  # of a tile's shorter side: 42 to 282 pixels, so that the smallest crops are enlarged 1.5 times
MIN_STD = 4.0  # gray levels over pixels and channels: crops below it are black corners
DIGIT = 32  # pixels
NUM_TRAIN_DIGITS = 1437
EDITIONS = {"scenes": 3}  # of data sets whose content changed; a home keeps earlier ones beside them


def resolve(url: str, home: Path) -> str:
    """Return the folder of bundled://name/split, built at its first use; any other URL unchanged."""
    parts = urlsplit(url)
    if parts.scheme != "bundled":
        return url
    split = parts.path.strip("/")
    if parts.netloc not in MAKERS or split not in SPLITS:
        known = ", ".join(f"bundled://{name}/{split}" for name in MAKERS for split in SPLITS)
        raise DataError(f"{url}: no such data set; there are {known}")
    return str(build(parts.netloc, home) / split)


def build(name: str, home: Path) -> Path:
    """Return the folder of a bundled data set with `train` and `val`. Safe to call from several processes at once."""
    edition = f"-{EDITIONS[name]}" if name in EDITIONS else ""
    folder = home / "data" / f"{name}-{VERSION}{edition}"  # one per version of the manifest
    for split in SPLITS:
        fetch_data(folder / split)
    if folder.exists():
        return folder
    with scratch(folder.parent, f".{name}-") as work:
        packed = work / "made"
        for split in SPLITS:
            MAKERS[name](split, work / split, packed / split)
        try:
            packed.rename(folder)
        except OSError:  # another process was first
            if not folder.exists():
                raise
    publish(folder)
    return folder


def _images(images: Images, split: str, work: Path, out: Path) -> None:
    """Pack labelled images. work: a folder for their files."""
    for number, (label, image) in enumerate(images(split)):
        path = work / label / f"{number:04d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(jpeg(image, quality=92))
    pack(work, out)


def _scenes(split: str, _: Path, out: Path, **kind: bool) -> None:
    words = "".join(f"{name} " for name in kind)
    say(f"rendering {scenes.NUMBER[split]} {words}scenes of bundled://scenes/{split}, once")
    pack_annotated(scenes.samples(split, **kind), out, classes=scenes.CLASSES)


def _mixed(split: str, _: Path, out: Path) -> None:
    ready("video")
    say(f"rendering {mixed.NUMBER[split]} scenes and clips of bundled://mixed/{split}, once")
    pack_annotated(mixed.samples(split), out, classes=mixed.CLASSES)


def _motions(split: str, _: Path, out: Path, *, order: str = "own") -> None:
    ready("video")
    kind = "" if order == "own" else f"{order} "
    say(f"rendering {motions.NUMBER[split]} {kind}clips of bundled://motions/{split}, once")
    pack_annotated(motions.samples(split, order=order), out, classes=list(motions.ORDERS))


def _impacts(split: str, _: Path, out: Path, *, sound: str = "own") -> None:
    ready("video")
    ready("audio")
    say(f"rendering {impacts.NUMBER[split]} clips of objects that fall, once")
    pack_annotated(impacts.samples(split, sound=sound), out, classes=list(impacts.MATERIALS))


def _files(samples: Files, suffix: str, split: str, work: Path, out: Path) -> None:
    """Pack labelled files. work: a folder for them."""
    for number, (label, data) in enumerate(samples(split)):
        path = work / label / f"{number:04d}.{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    pack(work, out)


def _sounds(split: str, work: Path, out: Path) -> None:
    ready("audio")
    _files(sounds.samples, "wav", split, work, out)


def _photos(split: str) -> Iterator[tuple[str, Pixels]]:
    draw = np.random.Generator(np.random.PCG64(SPLITS.index(split)))
    for name in PHOTOS:
        parts = tiles(photograph(name), split)
        crops = (_crop(parts[number % len(parts)], draw) for number in count())
        detailed = (crop for crop in crops if crop.std() >= MIN_STD)
        yield from ((name, crop) for crop in islice(detailed, PER_PHOTO[split]))


def _crop(tile: Image.Image, draw: np.random.Generator) -> Pixels:
    low, high = ZOOM
    side = min(tile.size) * (low + (high - low) * draw.random())
    left, top = (draw.random() * (length - side) for length in tile.size)
    box = (left, top, left + side, top + side)
    return np.asarray(tile.resize((CROP, CROP), Image.Resampling.BICUBIC, box=box))


def _digits(split: str) -> Iterator[tuple[str, Pixels]]:
    import sklearn.datasets

    digits = sklearn.datasets.load_digits()
    order = np.random.Generator(np.random.PCG64(0)).permutation(len(digits.images))
    for number in order[:NUM_TRAIN_DIGITS] if split == "train" else order[NUM_TRAIN_DIGITS:]:
        small = Image.fromarray(np.round(digits.images[number] * (255 / 16)).astype(np.uint8))
        large = small.resize((DIGIT, DIGIT), Image.Resampling.BICUBIC).convert("RGB")
        yield str(digits.target[number]), np.asarray(large)


MAKERS: dict[str, Maker] = {
    "photos": partial(_images, _photos),
    "digits": partial(_images, _digits),
    "scenes": _scenes,
    "miscaptioned": partial(_scenes, miscaptioned=True),
    "tagged": partial(_scenes, tagged=True),
    "mixed": _mixed,
    "motions": _motions,
    "shuffled": partial(_motions, order="shuffled"),
    "still": partial(_motions, order="still"),
    "impacts": _impacts,
    "silent": partial(_impacts, sound="none"),
    "mismatched": partial(_impacts, sound="other"),
    "sounds": _sounds,
    "solids": partial(_files, solids.samples, "points.npy"),
}

"""Two small data sets made from images that scikit-image and scikit-learn ship, without a download.

bundled://photos/train  4000 crops, 250 from each of 16 photographs; label: the photograph
bundled://photos/val     960 crops, 60 from each, of tiles that share no pixel with training crops
bundled://digits/train  1437 handwritten digits of 8x8 pixels, enlarged to 32x32
bundled://digits/val     360 others
"""

from collections.abc import Iterator
from itertools import count, islice
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
from PIL import Image

from selfsup.errors import DataError
from selfsup.pipelines.data.head import VERSION
from selfsup.pipelines.data.pack import pack
from selfsup.pipelines.modalities.pixels.coding import jpeg
from selfsup.pipelines.modalities.pixels.levels import Pixels
from selfsup.scratch import scratch

SPLITS = ("train", "val")
PHOTOS = {  # class -> function in skimage.data, or file in scikit-learn
    "astronaut": "astronaut",
    "brick": "brick",
    "cameraman": "camera",
    "cat": "chelsea",
    "coffee": "coffee",
    "coins": "coins",
    "flower": "flower.jpg",
    "galaxies": "hubble_deep_field",
    "grass": "grass",
    "gravel": "gravel",
    "moon": "moon",
    "motorcycle": "stereo_motorcycle",
    "pagoda": "china.jpg",
    "retina": "retina",
    "rocket": "rocket",
    "tissue": "immunohistochemistry",
}
CROP = 64  # pixels
PER_PHOTO = {"train": 250, "val": 60}
VAL_TILES = (0, 2, 4, 1, 3)  # column per row of the 5x5 tiles of a photograph, so that both splits see all of it
ZOOM = (0.6, 1.0)  # of a tile's shorter side: 42 to 282 pixels, so that the smallest crops are enlarged 1.5 times
MIN_STD = 4.0  # gray levels over pixels and channels: crops below it are black corners
DIGIT = 32  # pixels
NUM_TRAIN_DIGITS = 1437


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
    folder = home / "data" / f"{name}-{VERSION}"  # one per version of the manifest
    if folder.exists():
        return folder
    with scratch(folder.parent, f".{name}-") as work:
        packed = work / "made"
        for split in SPLITS:
            _write(work / split, MAKERS[name](split))
            pack(work / split, packed / split)
        try:
            packed.rename(folder)
        except OSError:  # another process was first
            if not folder.exists():
                raise
    return folder


def _write(folder: Path, images: Iterator[tuple[str, Pixels]]) -> None:
    for number, (label, image) in enumerate(images):
        path = folder / label / f"{number:04d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(jpeg(image, quality=92))


def _photos(split: str) -> Iterator[tuple[str, Pixels]]:
    draw = np.random.Generator(np.random.PCG64(SPLITS.index(split)))
    for name in PHOTOS:
        tiles = _tiles(_photograph(name), split)
        crops = (_crop(tiles[number % len(tiles)], draw) for number in count())
        detailed = (crop for crop in crops if crop.std() >= MIN_STD)
        yield from ((name, crop) for crop in islice(detailed, PER_PHOTO[split]))


def _tiles(photo: Image.Image, split: str) -> list[Image.Image]:
    """Return the tiles of a split as images of their own, so that no resampling reads beyond an edge."""
    side = len(VAL_TILES)
    x, y = ([length * number // side for number in range(side + 1)] for length in photo.size)
    return [
        photo.crop((x[column], y[row], x[column + 1], y[row + 1]))
        for row in range(side)
        for column in range(side)
        if (VAL_TILES[row] == column) == (split == "val")
    ]


def _photograph(name: str) -> Image.Image:
    import skimage.data
    import sklearn.datasets  # takes a second, and the set mostly exists

    source = PHOTOS[name]
    if source.endswith(".jpg"):
        image = sklearn.datasets.load_sample_image(source)
    else:
        image = getattr(skimage.data, source)()
    return Image.fromarray(image[0] if isinstance(image, tuple) else image).convert("RGB")


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


MAKERS = {"photos": _photos, "digits": _digits}

"""Public data sets with dense annotation, in the folders that their publishers hand out: `selfsup shards pack --as`.

ade20k  ADEChallengeData2016: images/training/*.jpg, annotations/training/*.png, and validation; 150 classes
voc     VOC2012: JPEGImages, SegmentationClass, SegmentationObject, ImageSets/Segmentation/train.txt and val.txt; 21
coco    train2017, val2017, annotations/panoptic_train2017.json and .../panoptic_train2017/*.png; 80 things, 53 stuff
nyu     nyu_depth_v2: sync/*/rgb_*.jpg with sync_depth_*.png in millimeters, official_splits/test/*/ likewise
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from selfsup.errors import DataError
from selfsup.pipelines.data.annotated import AnnotatedSample, png

VOID = 255
COCO_LISTS = ("categories", "images", "annotations")
SPLITS = ("train", "val")


class AnnotatedSplit(NamedTuple):
    """The samples of a split, each read when it is asked for. entries: what `sample` takes."""

    entries: Sequence[Any]
    sample: Callable[[Any], AnnotatedSample]


def read(layout: str, root: Path) -> Mapping[str, AnnotatedSplit]:
    """Return the splits of a data set. Raises DataError where a folder is not laid out as its publisher does."""
    splits = {split: LAYOUTS[layout](root, split) for split in SPLITS}
    if empty := [split for split in SPLITS if not splits[split].entries]:
        layouts = (__doc__ or "").split("\n\n")[1].splitlines()
        [expected] = (" ".join(line.split()[1:]) for line in layouts if line.split()[0] == layout)
        raise DataError(f"{root}: no image of {layout}'s {empty[0]} split; expected {expected}")
    return splits


def _ade20k(root: Path, split: str) -> AnnotatedSplit:
    folder = {"train": "training", "val": "validation"}[split]

    def sample(path: Path) -> AnnotatedSample:
        stored = _values(root / "annotations" / folder / f"{path.stem}.png")
        seg = (stored - 1).astype(np.uint8)  # 0, of no class, becomes 255
        return AnnotatedSample(path.stem, {"jpg": path.read_bytes(), "seg.png": png(seg)})

    return AnnotatedSplit(sorted((root / "images" / folder).glob("*.jpg")), sample)


def _voc(root: Path, split: str) -> AnnotatedSplit:
    listed = root / "ImageSets" / "Segmentation" / f"{split}.txt"

    def sample(name: str) -> AnnotatedSample:
        seg, inst = (_values(root / f"Segmentation{kind}" / f"{name}.png") for kind in ("Class", "Object"))
        maps = {"seg.png": png(seg), "inst.png": png(np.where(inst == VOID, 0, inst).astype(np.uint8))}
        return AnnotatedSample(name, {"jpg": (root / "JPEGImages" / f"{name}.jpg").read_bytes()} | maps)

    return AnnotatedSplit(listed.read_text().split() if listed.exists() else [], sample)


def _coco(root: Path, split: str) -> AnnotatedSplit:
    listed = root / "annotations" / f"panoptic_{split}2017.json"
    content = json.loads(listed.read_text()) if listed.exists() else {name: [] for name in COCO_LISTS}
    number = {category["id"]: place for place, category in enumerate(content["categories"])}
    things = {category["id"] for category in content["categories"] if category["isthing"]}
    files = {image["id"]: image["file_name"] for image in content["images"]}

    def sample(entry: Mapping[str, Any]) -> AnnotatedSample:
        image = root / f"{split}2017" / files[entry["image_id"]]
        segments = listed.with_suffix("") / entry["file_name"]
        return _coco_sample(image, segments, entry["segments_info"], number, things)

    return AnnotatedSplit(content["annotations"], sample)


def _coco_sample(
    image: Path, segments: Path, info: Sequence[Mapping[str, Any]], number: Mapping[int, int], things: set[int]
) -> AnnotatedSample:
    """Return a sample of a picture whose colors number segments, red + 256 green + 65536 blue; 0: none."""
    colors = _values(segments).astype(np.int64)
    segment = colors[..., 0] + 256 * colors[..., 1] + 65536 * colors[..., 2]
    seg, inst = np.full(segment.shape, VOID, np.uint8), np.zeros(segment.shape, np.uint16)
    for place, part in enumerate(info, start=1):
        mask = segment == part["id"]
        seg[mask] = number[part["category_id"]]
        inst[mask] = place if part["category_id"] in things and not part["iscrowd"] else 0
    return AnnotatedSample(image.stem, {"jpg": image.read_bytes(), "seg.png": png(seg), "inst.png": png(inst)})


def _nyu(root: Path, split: str) -> AnnotatedSplit:
    folder = root / {"train": "sync", "val": "official_splits/test"}[split]

    def sample(path: Path) -> AnnotatedSample:
        depth = path.with_name(f"sync_depth_{path.stem.removeprefix('rgb_')}.png")
        members = {"jpg": path.read_bytes(), "depth.png": _bytes(depth)}
        return AnnotatedSample(f"{path.parent.name}/{path.stem}", members)

    return AnnotatedSplit(sorted(folder.glob("*/rgb_*.jpg")), sample)


def _values(path: Path) -> NDArray[Any]:
    """-> (H, W), or (H, W, 3) of colors. Raises DataError where there is no such picture."""
    try:
        with Image.open(path, formats=["PNG"]) as image:
            return np.asarray(image)
    except Exception as error:  # as Pillow's decoders raise many types on corrupt bytes
        raise DataError(f"{path}: not a PNG that can be read: {error}") from error


def _bytes(path: Path) -> bytes:
    _values(path)  # it can be read
    return path.read_bytes()


LAYOUTS = {"ade20k": _ade20k, "voc": _voc, "coco": _coco, "nyu": _nyu}

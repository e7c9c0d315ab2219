"""Objects of images as COCO describes them, read off maps of pixels, and the average precision of guesses.

O: objects of an image, S: pixels a side.
"""

import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as run_lengths
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from scipy.ndimage import find_objects

from selfsup.evaluator import Map

MOST = 100  # guesses of an image that count
MASK = 28  # places a side of a mask in its box
PACKED = 6 + MASK**2  # numbers of a packed guess: box, class, score, mask
KINDS = {"boxes": "bbox", "masks": "segm"}
Entry = dict[str, Any]  # of COCO's annotations


class Objects(NamedTuple):
    """The objects of an image. boxes: (O, 4), left, top, right and bottom in pixels, the last two not included.

    classes: (O,), from 0. masks: (O, S, S), bool. scores: (O,), of guesses, the larger the surer; 1 of truth.
    """

    boxes: NDArray[np.float32]
    classes: NDArray[np.int64]
    masks: NDArray[np.bool_]
    scores: NDArray[np.float32]


def boxes_of(map_: Map) -> NDArray[np.float32]:
    """(S, S), numbers of objects, 0 of none -> (O, 4): the box of each, by rising number"""
    places = [place for place in find_objects(map_) if place]
    boxes = [(columns.start, rows.start, columns.stop, rows.stop) for rows, columns in places]
    return np.array(boxes, np.float32).reshape(-1, 4)


def objects_of(maps: Map) -> Objects:
    """(2, S, S), classes and numbers of objects -> those that have a class: that of most of their pixels."""
    seg, inst = maps
    masks = inst == np.unique(inst[inst > 0])[:, None, None]
    counts = [np.bincount(seg[mask & (seg >= 0)]) for mask in masks]
    known = np.array([len(count) > 0 for count in counts], bool)
    classes = np.array([count.argmax() for count in counts if len(count)], np.int64)
    return Objects(boxes_of(inst)[known], classes, masks[known], np.ones(len(classes), np.float32))


def average_precision(pairs: Iterable[tuple[Objects, Objects]]) -> dict[str, tuple[float, float]]:
    """Return AP and AP50 in percent, of boxes and of masks: COCO's, over all sizes, of at most 100 guesses an image.

    The mean over overlaps of 0.5, 0.55 ... 0.95, and that at 0.5, each over classes. pairs: what an image shows, and
    what was guessed, of which no mask is kept.
    """
    known: list[Entry] = []
    guessed: list[Entry] = []
    for number, (true, guess) in enumerate(pairs):
        known += _entries(true, number)
        guessed += _entries(guess, number)
    sizes = {entry["image_id"]: entry["segmentation"]["size"] for entry in known + guessed}
    classes = sorted({entry["category_id"] for entry in known})
    with redirect_stdout(io.StringIO()):  # it tells how long it takes
        tables = [_table(entries, sizes, classes) for entries in (known, guessed)]
        return {name: _precision(COCOeval(*tables, kind)) for name, kind in KINDS.items()}


def _precision(evaluation: Any) -> tuple[float, float]:
    params = evaluation.params
    params.areaRng, params.areaRngLbl, params.maxDets = [[0, 1e10]], ["all"], [MOST]
    evaluation.evaluate()
    evaluation.accumulate()
    precision = evaluation.eval["precision"]  # (overlaps, recalls, classes, 1, 1)
    return 100 * float(precision.mean()), 100 * float(precision[0].mean())


def _table(entries: list[Entry], sizes: Mapping[int, Sequence[int]], classes: list[int]) -> Any:
    table = COCO()
    table.dataset = {
        "images": [{"id": number, "height": height, "width": width} for number, (height, width) in sizes.items()],
        "categories": [{"id": number} for number in classes],
        "annotations": [{"id": number, **entry} for number, entry in enumerate(entries, start=1)],  # 0: no match
    }
    table.createIndex()
    return table


def _entries(image: Objects, number: int) -> Iterator[Entry]:
    codes = run_lengths.encode(np.asfortranarray(image.masks.transpose(1, 2, 0).astype(np.uint8)))
    sizes = np.concatenate([image.boxes[:, :2], image.boxes[:, 2:] - image.boxes[:, :2]], axis=1).tolist()
    rows = zip(codes, sizes, image.classes.tolist(), image.scores.tolist(), image.masks.sum((1, 2)), strict=True)
    for code, box, label, score, area in rows:
        shared = {"image_id": number, "category_id": label, "score": score}
        yield shared | {"bbox": box, "segmentation": code, "area": float(area), "iscrowd": 0}

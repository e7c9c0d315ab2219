#!/usr/bin/env bash
# An annotation whose id is 0 counts as missed in pycocotools, and the box that found it as wrong, with no word of it.
#
# Versions: pycocotools 2.0.11, faster-coco-eval 1.8.0, numpy 2.4.6, Python 3.11.
# Expected: AP does not depend on how annotations are numbered: COCO's format asks for integers that are unique.
# Happens: the table of matches has, for each guessed box, the id of the true one that it found, and 0 for none. So what was found under
#   id 0 is a false positive, and itself counts as missed: of two objects, both found exactly, AP is 25.2 in place of 100, and recall 50.
#   faster-coco-eval, made to give the same numbers, gives these, too, but warns.
# Why it matters: whoever numbers annotations by `enumerate`, of satellite scenes, cells or rendered images, starts at 0. Of thousands of
#   objects one is not noticed; of a class with a few, as in low-shot detection, or where each image is evaluated by itself, AP moves
#   by tens of points, and against the encoder that finds the object: who misses it loses nothing.
set -euo pipefail
cd "$(mktemp -d)"
python3 -m venv env
env/bin/pip install -q --disable-pip-version-check pycocotools==2.0.11 faster-coco-eval==1.8.0 numpy==2.4.6 2>/dev/null
cat > see.py <<'PY'
import io
import warnings
from contextlib import redirect_stdout

from faster_coco_eval import COCO as OtherCOCO
from faster_coco_eval import COCOeval_faster
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

BOXES = [[10, 10, 20, 20], [50, 10, 20, 20]]


def measured(table, evaluation, first):
    """-> AP and recall, in percent, of guesses that are the true boxes; annotations are numbered from `first` on."""
    known = [
        {"id": first + number, "image_id": 1, "category_id": 1, "bbox": box, "area": 400, "iscrowd": 0}
        for number, box in enumerate(BOXES)
    ]
    guessed = [{"image_id": 1, "category_id": 1, "bbox": box, "score": 0.9 - number / 10} for number, box in enumerate(BOXES)]
    with redirect_stdout(io.StringIO()), warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        truth = table()
        truth.dataset = {
            "images": [{"id": 1, "height": 100, "width": 100}],
            "categories": [{"id": 1, "name": "box"}],
            "annotations": known,
        }
        truth.createIndex()
        made = evaluation(truth, truth.loadRes(guessed), "bbox")
        made.evaluate()
        made.accumulate()
        made.summarize()
    return round(100 * float(made.stats[0]), 1), round(100 * float(made.stats[8])), any("id 0" in str(one.message) for one in said)


EXPECTED = {  # by ids from 1, and from 0
    "pycocotools": (COCO, COCOeval, (100.0, 100, False), (25.2, 50, False)),
    "faster-coco-eval": (OtherCOCO, COCOeval_faster, (100.0, 100, False), (25.2, 50, True)),
}
for name, (table, evaluation, *expected) in EXPECTED.items():
    for first, numbers in zip((1, 0), expected):
        seen = measured(table, evaluation, first)
        print(f"{name}, ids from {first}: AP {seen[0]}, recall {seen[1]}, {'with' if seen[2] else 'without'} a warning")
        assert seen == numbers, "the behaviour has changed"
PY
env/bin/python see.py

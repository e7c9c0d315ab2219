#!/usr/bin/env bash
# torchmetrics' MeanIoU is no mIoU of papers: it is a mean over pairs of image and class, and ranks models the other way round.
#
# Versions: torchmetrics 1.9.0, torch 2.15.0, numpy 2.4.6, Python 3.11.
# Expected: the mIoU of ADE20K, VOC and Cityscapes: intersections and unions are counted over the whole test set, a ratio for
#   each class, and their mean. The class is called MeanIoU, gathers a state over batches, and speaks of no other definition.
# Happens: a ratio is formed for each class in each image, and these are averaged over all pairs that occur. A class counts by
#   how many images it is in; one stray pixel of a class in an image without it scores 0 there. per_class=True is an average
#   over images, too. MulticlassJaccardIndex of the same package counts over the whole set.
# Why it matters: a linear segmentation probe that is read off MeanIoU is not on the scale of published numbers, and which of
#   two encoders is better may turn round: below, one with 9 stray pixels in 1000 has 0.52 where papers have 0.95, and loses to
#   one that misses half of an object.
set -euo pipefail
cd "$(mktemp -d)"
python3 -m venv env
env/bin/pip install -q --disable-pip-version-check torchmetrics==1.9.0 torch==2.15.0 numpy==2.4.6 2>/dev/null
cat > see.py <<'PY'
import torch
from torchmetrics.classification import MulticlassJaccardIndex
from torchmetrics.segmentation import MeanIoU

truth = torch.zeros(10, 10, 10, dtype=torch.int64)  # ten images of 100 pixels
truth[9] = 1  # the only one that shows class 1
strays, half = truth.clone(), truth.clone()
strays[:9, 0, 0] = 1  # one pixel in each image without it
half[9, :5] = 0  # half of the object is missed


def over_the_set(guess: torch.Tensor) -> float:
    ratios = [((guess == c) & (truth == c)).sum() / ((guess == c) | (truth == c)).sum() for c in (0, 1)]
    return float(sum(ratios) / 2)


def over_pairs(guess: torch.Tensor) -> float:
    pairs = [((g == c) & (t == c)).sum() / ((g == c) | (t == c)).sum() for g, t in zip(guess, truth) for c in (0, 1)]
    return float(torch.stack(pairs).nanmean())


seen = {}
for name, guess in (("strays", strays), ("half", half)):
    metric = MeanIoU(num_classes=2, input_format="index")
    for image in range(10):  # a batch each
        metric.update(guess[image : image + 1], truth[image : image + 1])
    seen[name] = float(metric.compute())
    jaccard = float(MulticlassJaccardIndex(2, average="macro")(guess, truth))
    print(f"{name}: mIoU by hand {over_the_set(guess):.3f}, MulticlassJaccardIndex {jaccard:.3f}, MeanIoU {seen[name]:.3f}")
    assert abs(jaccard - over_the_set(guess)) < 1e-6
    assert abs(seen[name] - over_pairs(guess)) < 1e-6, "the behaviour has changed"
by_class = MeanIoU(num_classes=2, input_format="index", per_class=True)(strays, truth).tolist()
print(f"strays, per_class: {by_class[0]:.3f}, {by_class[1]:.3f}")
assert abs(by_class[1] - 0.1) < 1e-6, "the behaviour has changed"  # right in one of the ten images that it is said of
assert over_the_set(strays) > over_the_set(half) and seen["strays"] < seen["half"], "the behaviour has changed"
PY
env/bin/python see.py

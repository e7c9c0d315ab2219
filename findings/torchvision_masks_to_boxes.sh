#!/usr/bin/env bash
# torchvision's masks_to_boxes ends a box before its last pixel: small objects miss COCO's boxes, and flips move boxes off masks.
#
# Versions: torchvision 0.29.2, torch 2.15.0, pycocotools 2.0.11, numpy 2.4.6, Python 3.11.
# Expected: the box of a mask of 3x3 pixels has an area of 9, as COCO's has, and is found again when both are flipped.
# Happens: right and bottom are the numbers of the last column and row, not the edges after them, so that every box is a pixel
#   short. The perfect mask of a 3x3 object has a box whose IoU with COCO's is 4/9, a miss at 0.5; of 10x10, 0.81, a miss at 0.85
#   and above. A mask one pixel wide has a box without area, which torchvision's own Mask R-CNN refuses to train on. transforms.v2
#   takes the same numbers for edges: after horizontal_flip the box lies one pixel right of that of the flipped mask.
# Why it matters: boxes for fine-tuning on masks (ADE20K, Cityscapes, cells in microscopy, the rendered scenes of this project)
#   are made so in torchvision's tutorial. AP of small objects is then bounded well below 100, differently for each size, and
#   encoders are compared by it. Add one to right and bottom.
set -euo pipefail
cd "$(mktemp -d)"
python3 -m venv env
env/bin/pip install -q --disable-pip-version-check torch==2.15.0 torchvision==0.29.2 pycocotools==2.0.11 numpy==2.4.6 2>/dev/null
cat > see.py <<'PY'
import numpy as np
import torch
from pycocotools import mask as coco
from torchvision.models.detection import maskrcnn_resnet50_fpn
from torchvision.ops import box_iou, masks_to_boxes
from torchvision.transforms.v2.functional import horizontal_flip
from torchvision.tv_tensors import BoundingBoxes


def square(side, *, width=None):
    mask = torch.zeros(1, 32, 32, dtype=torch.bool)
    mask[0, 2 : 2 + side, 1 : 1 + (width or side)] = True
    return mask


def coco_box(mask):
    left, top, width, height = coco.toBbox(coco.encode(np.asfortranarray(mask[0].numpy().astype(np.uint8))))
    return torch.tensor([[left, top, left + width, top + height]])


ious = {side: box_iou(masks_to_boxes(square(side)).double(), coco_box(square(side))).item() for side in (3, 10)}
print("IoU of the boxes that torchvision and COCO give the same mask:", {side: round(iou, 3) for side, iou in ious.items()})
flipped = horizontal_flip(BoundingBoxes(masks_to_boxes(square(3)), format="XYXY", canvas_size=(32, 32)))
own = masks_to_boxes(square(3).flip(-1))
print("box after a flip:", flipped[0].tolist(), "box of the flipped mask:", own[0].tolist())
model = maskrcnn_resnet50_fpn(weights=None, weights_backbone=None, num_classes=2, min_size=32, max_size=32)
thin = square(4, width=1)
target = {"boxes": masks_to_boxes(thin), "labels": torch.tensor([1]), "masks": thin.byte()}
try:
    model([torch.rand(3, 32, 32)], [target])
    refusal = ""
except (AssertionError, ValueError) as error:
    refusal = str(error)
print("Mask R-CNN on a mask one pixel wide:", refusal)
assert abs(ious[3] - 4 / 9) < 1e-6 and abs(ious[10] - 0.81) < 1e-6, "the behaviour has changed"
assert (flipped[0] - own[0]).tolist() == [1, 0, 1, 0], "the behaviour has changed"
assert "positive height and width" in refusal, "the behaviour has changed"
PY
env/bin/python see.py

#!/usr/bin/env bash
# torchvision resizes a mask half a cell off its image: from 64 pixels to 8, its edges move by 3.5 pixels in the mean.
#
# Versions: torchvision 0.29.2, torch 2.15.0 (CPU), pillow 13.0.0, numpy 2.4.6, Python 3.11.
# Expected: of each cell the mask shows what is in its middle, as Pillow's nearest neighbour and torch's "nearest-exact" do.
# Happens: v2.Resize, RandomResizedCrop and others resize a tensor of kind Mask by torch's "nearest", which takes each cell's
#   first pixel, in its top left corner; the image beside it is averaged about the middle. A Pillow mask, resized by nearest
#   neighbour in the same library, takes the middle: a cell's class depends on whether masks became tensors before or after.
# Why it matters: masks at the size of patch tokens (8, 14 or 16 pixels a cell) are what linear and kNN segmentation of frozen
#   features train on and are scored by: half a patch off on two sides, against features that sit on the image. Boundaries and
#   thin things lose IoU for every encoder, and numbers differ between papers whose loaders differ in the order of two lines.
set -euo pipefail
cd "$(mktemp -d)"
python3 -m venv env
env/bin/pip install -q --disable-pip-version-check torchvision==0.29.2 torch==2.15.0 pillow==13.0.0 numpy==2.4.6 2>/dev/null
cat > see.py <<'PY'
import numpy as np
import torch
from PIL import Image
from torch.nn.functional import interpolate
from torchvision import tv_tensors
from torchvision.transforms import v2

SIDE, CELLS = 64, 8
resize, nearest = v2.Resize((CELLS, CELLS)), v2.Resize((CELLS, CELLS), v2.InterpolationMode.NEAREST)
share = {"tensor": [], "Pillow": [], "nearest-exact": []}
for edge in range(SIDE + 1):  # the object covers all columns from this one on
    mask = torch.zeros(1, SIDE, SIDE, dtype=torch.uint8)
    mask[..., edge:] = 1
    image = tv_tensors.Image(255 * mask.repeat(3, 1, 1))
    picture, tensor = resize(image, tv_tensors.Mask(mask))
    pillow = nearest(Image.fromarray(mask[0].numpy()))
    exact = interpolate(mask[None], size=(CELLS, CELLS), mode="nearest-exact")
    rows = {"tensor": tensor[0, 0].numpy(), "Pillow": np.asarray(pillow)[0], "nearest-exact": exact[0, 0, 0].numpy()}
    for name, row in rows.items():
        share[name].append(row.sum() * SIDE / CELLS - (SIDE - edge))
    if edge == 34:
        print(f"edge at {edge} of {SIDE}: image {(picture[0, 0] / 255).numpy().round(2)}")
        print("\n".join(f"  mask, {name}: {row}" for name, row in rows.items()))
for name, errors in share.items():
    print(f"{name}: the edge moves by {-max(errors):+.0f} to {-min(errors):+.0f} pixels, {-np.mean(errors):+.2f} in the mean")
assert max(map(abs, share["Pillow"])) == max(map(abs, share["nearest-exact"])) == 4
assert (min(share["tensor"]), max(share["tensor"])) == (-7, 0), "the behaviour has changed"
PY
env/bin/python see.py

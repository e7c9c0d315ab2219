#!/usr/bin/env bash
# scikit-image's imread takes a TIFF stack of three or four slices for colours: its axes are moved, of two or five slices they are not.
#
# Versions: scikit-image 0.26.0, tifffile 2026.3.3, numpy 2.4.6, Python 3.11.
# Expected: the axes of a grey stack are those of the file, (slices, height, width), whatever the number of slices.
# Happens: where the third axis from the end has three or four entries and the last one has not, skimage.io.imread moves it to the end,
#   for TIFFs alone, and says nothing: stacks of 2, 3, 4, 5 slices have the shapes (2, H, W), (H, W, 3), (H, W, 4), (5, H, W). So do
#   time series of three or four channels: (T, 4, H, W) becomes (T, H, W, 4). The file says that it is grey.
# Why it matters: microscopes' folders hold stacks of many depths. A loop over slices of the first axis cuts rows out of some of them, and
#   crops of pixels take slices for a side: a few samples of a data set train on something else, without an error.
set -euo pipefail
cd "$(mktemp -d)"
python3 -m venv env
env/bin/pip install -q --disable-pip-version-check scikit-image==0.26.0 tifffile==2026.3.3 numpy==2.4.6 2>/dev/null
cat > see.py <<'PY'
import numpy as np
import tifffile
from skimage import io

shapes = {}
for slices in (2, 3, 4, 5):
    stack = np.random.default_rng(0).integers(0, 4096, (slices, 40, 50), dtype=np.uint16)
    tifffile.imwrite("stack.tif", stack, photometric="minisblack", metadata={"axes": "ZYX"})
    assert tifffile.imread("stack.tif").shape == stack.shape
    read = io.imread("stack.tif")
    shapes[slices] = read.shape
    print(f"{slices} slices of 40x50: tifffile {stack.shape}, skimage.io.imread {read.shape}; the first of them is {read[0].shape}")
    assert np.array_equal(read if slices in (2, 5) else np.moveaxis(read, -1, 0), stack), "the behaviour has changed"
assert shapes == {2: (2, 40, 50), 3: (40, 50, 3), 4: (40, 50, 4), 5: (5, 40, 50)}, "the behaviour has changed"

series = np.zeros((6, 4, 40, 50), np.uint16)
tifffile.imwrite("series.tif", series, photometric="minisblack", metadata={"axes": "TCYX"})
print(f"six times of four channels: {io.imread('series.tif').shape}")
assert io.imread("series.tif").shape == (6, 40, 50, 4), "the behaviour has changed"
PY
env/bin/python see.py

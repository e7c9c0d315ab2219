#!/usr/bin/env bash
# OpenCV divides the numbers of a PFM by the scale in its header: disparities whose writer put 1/255 there come out 255 times too large.
#
# Versions: opencv-python-headless 5.0.0.93, pillow 13.0.0, numpy 2.4.6, Python 3.11.
# Expected: a depth or disparity stored as 100 is read as 100. The number in the third line of a PFM gives the byte order by its sign; its
#   size is a unit for whoever wants to know it, as in Pillow, which hands it out beside the pixels, and in Middlebury's own reader.
# Happens: cv2.imread gives stored / scale. OpenCV itself writes 1, so that what it wrote comes back. Middlebury's writer puts
#   1/255 there by default and does not touch the numbers; "-0.003922" turns 100 pixels into 25497.2. Pillow gives 100.
# Why it matters: PFM is the format of disparity and depth (Middlebury, Scene Flow, ETH3D), and depth probes mix such sets. Those with
#   a scale of 1 are right; of one with 1/255 every disparity is beyond the range that a loader takes for valid, so that the whole image is
#   masked or clipped to one value, or depth, by its inverse, is 255 times too near: errors that are scale-invariant see nothing.
set -euo pipefail
cd "$(mktemp -d)"
python3 -m venv env
env/bin/pip install -q --disable-pip-version-check opencv-python-headless==5.0.0.93 pillow==13.0.0 numpy==2.4.6 2>/dev/null
cat > see.py <<'PY'
import cv2
import numpy as np
from PIL import Image

disparities = np.array([[100.0, 12.5, 3.0], [250.0, 64.0, 1.5]], np.float32)
for scale in ("-1", "-0.003922", "-2", "0.003922"):
    rows = disparities[::-1].astype("<f4" if scale.startswith("-") else ">f4")
    with open("disparities.pfm", "wb") as file:
        file.write(f"Pf\n3 2\n{scale}\n".encode() + rows.tobytes())
    opencv = cv2.imread("disparities.pfm", cv2.IMREAD_UNCHANGED)
    with Image.open("disparities.pfm") as image:
        pillow, told = np.asarray(image), image.info["scale"]
    print(f"scale {scale:>9}, first number 100: OpenCV {opencv[0, 0]:g}, Pillow {pillow[0, 0]:g} (and says {told:g})")
    assert (pillow == disparities).all() and told == abs(float(scale)), "the behaviour has changed"
    assert np.allclose(opencv, disparities / abs(float(scale)), rtol=1e-6, atol=0), "the behaviour has changed"
cv2.imwrite("own.pfm", disparities)
assert (cv2.imread("own.pfm", cv2.IMREAD_UNCHANGED) == disparities).all()
PY
env/bin/python see.py

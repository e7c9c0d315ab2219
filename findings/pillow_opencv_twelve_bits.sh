#!/usr/bin/env bash
# Pillow multiplies a JPEG 2000 of 12 bits by 16 and a TIFF of 12 bits by nothing; OpenCV the TIFF by 16 and the JPEG 2000 by nothing.
#
# Versions: pillow 13.0.0, opencv-python-headless 5.0.0.93, rasterio 1.4.4 (GDAL 3.10.3), numpy 2.4.6, Python 3.11.
# Expected: 1000 in a file of 12 bits reads as 1000 in an array of 16, as rasterio has it of both; or a library stretches every file to the
#   whole range of its array, and says so.
# Happens: lossless files of 12, 14, 15 and 16 bits, all with 1000 in the same pixel. JPEG 2000: Pillow gives 16000, 4000, 2000 and 1000,
#   OpenCV 1000 four times. TIFF of 12 bits: Pillow gives 1000, OpenCV 16000. All come as 16 bits (I;16, uint16), without a warning;
#   Pillow's image of a JPEG 2000 does not tell how many it had. With a sign it is shifted by Pillow: -1000 is 31768.
# Why it matters: bands of Sentinel-2 are JPEG 2000 of 15 bits, so by Pillow reflectances are doubled; radiographs, mammograms and
#   industrial cameras have 10 to 14 bits. Fixed scales (10,000 for reflectance, windows of units) and means for normalisation are then off
#   by 2 to 16, data sets that mix bits or formats are stretched sample by sample, and an encoder evaluated through the other library
#   sees nearly black images.
set -euo pipefail
cd "$(mktemp -d)"
python3 -m venv env
env/bin/pip install -q --disable-pip-version-check pillow==13.0.0 opencv-python-headless==5.0.0.93 rasterio==1.4.4 numpy==2.4.6 2>/dev/null
cat > see.py <<'PY'
import warnings

import cv2
import numpy as np
import rasterio
from PIL import Image

warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
stored = np.arange(4096, dtype=np.uint16).reshape(64, 64)
row, column = divmod(1000, 64)


def written(driver: str, bits: int, values: np.ndarray) -> str:
    name = f"{driver}-{bits}-{values.dtype}.{'tif' if driver == 'GTiff' else 'jp2'}"
    options = {} if driver == "GTiff" else {"QUALITY": 100, "REVERSIBLE": "YES"}
    with rasterio.open(name, "w", driver=driver, width=64, height=64, count=1, dtype=values.dtype, NBITS=bits, **options) as file:
        file.write(values, 1)
    with rasterio.open(name) as file:
        assert (file.read(1) == values).all()
    return name


for driver, bits, by_pillow, by_opencv in (
    ("JP2OpenJPEG", 12, 16, 1), ("JP2OpenJPEG", 14, 4, 1), ("JP2OpenJPEG", 15, 2, 1), ("JP2OpenJPEG", 16, 1, 1),
    ("GTiff", 12, 1, 16), ("GTiff", 16, 1, 1),
):  # fmt: skip
    name = written(driver, bits, stored)
    with Image.open(name) as image:
        mode, pillow = image.mode, np.asarray(image)
    opencv = cv2.imread(name, cv2.IMREAD_UNCHANGED)
    print(f"{driver:11} of {bits} bits: rasterio 1000, Pillow {pillow[row, column]} ({mode}), OpenCV {opencv[row, column]} ({opencv.dtype})")
    assert mode == "I;16" and opencv.dtype == np.uint16
    assert (pillow == by_pillow * stored).all() and (opencv == by_opencv * stored).all(), "the behaviour has changed"
signed = stored.astype(np.int16) - 2000
with Image.open(written("JP2OpenJPEG", 16, signed)) as image:
    values = np.asarray(image)
    print(f"JP2OpenJPEG of 16 bits with a sign: rasterio {signed[row, column]}, Pillow {values[row, column]} ({image.mode})")
assert (values == signed.astype(np.int64) + 32768).all(), "the behaviour has changed"
PY
env/bin/python see.py

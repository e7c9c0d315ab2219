#!/usr/bin/env bash
# A smaller reading by "average" in rasterio is no average where a file has overviews: pixels are picked, and noise stays as it is.
#
# Versions: rasterio 1.4.4 (GDAL 3.10.3), numpy 2.4.6, Python 3.11.
# Expected: read(out_shape=..., resampling=Resampling.average) is the mean of the pixels below each new one, of whatever file.
# Happens: of a file without overviews it is. Once the file has any, GDAL reads the one nearest in size instead of the pixels, and that
#   one is as its maker made it: build_overviews, gdaladdo and many archives pick every second pixel. At half and at a quarter of the
#   size every value is then a pixel picked from the file, and noise of deviation 73.5 stays so, where a mean of 16 has 18.3.
#   overview_level=-1 gives "no overviews", and the mean.
# Why it matters: satellite archives are cloud-optimized files with overviews, and readers of training sets shrink scenes by out_shape.
#   Two products, or two copies of one, give encoders other inputs at the same scale: one smooth, one aliased, and speckle of radar is not
#   averaged. A linear probe tells such sources apart. Who writes overviews says how they are resampled; who reads asks for none.
set -euo pipefail
cd "$(mktemp -d)"
python3 -m venv env
env/bin/pip install -q --disable-pip-version-check rasterio==1.4.4 numpy==2.4.6 2>/dev/null
cat > see.py <<'PY'
import warnings

import numpy as np
import rasterio
from rasterio.enums import Resampling

warnings.simplefilter("ignore")  # the image is nowhere on Earth
noise = np.random.default_rng(0).integers(0, 255, (256, 256), dtype=np.uint8)
SIZE = {"driver": "GTiff", "width": 256, "height": 256, "count": 1, "dtype": "uint8"}
with rasterio.open("noise.tif", "w", **SIZE) as file:
    file.write(noise, 1)


def averaged(side, **how):
    with rasterio.open("noise.tif", **how) as opened:
        return opened.read(1, out_shape=(side, side), resampling=Resampling.average)


def mean(side):
    step = 256 // side
    return noise.reshape(side, step, side, step).mean((1, 3))


for side in (128, 64):
    assert np.abs(averaged(side) - mean(side)).max() <= 0.5
    print(f"without overviews, {side} pixels: the mean; deviation {averaged(side).std():.1f}")
with rasterio.open("noise.tif", "r+") as file:
    file.build_overviews([2, 4])
for side in (128, 64):
    step = 256 // side
    picked = (averaged(side) == noise[::step, ::step]).mean()
    print(f"with overviews, {side} pixels: {100 * picked:.0f} % are pixels of the file; deviation {averaged(side).std():.1f}")
    assert picked == 1 and averaged(side).std() > 70, "the behaviour has changed"
    assert np.abs(averaged(side, overview_level=-1) - mean(side)).max() <= 0.5
print("with overviews and overview_level=-1: the mean")
PY
env/bin/python see.py

#!/usr/bin/env bash
# rasterio's write wraps floats round in a uint8 raster, 256 becoming 0, where its reproject and WarpedVRT round and clip.
#
# Versions: rasterio 1.4.4 with GDAL 3.10.3, numpy 2.4.6, Python 3.11.
# Expected: values outside a raster's type are clipped to it and fractions rounded, as GDAL does everywhere it converts, or
#   refused; in any case the same on every way into a uint8 raster.
# Happens: dataset.write() converts with numpy before GDAL sees the values: cut towards zero, and modulo 256. reproject() to
#   uint8 and WarpedVRT(dtype="uint8") round and clip. None of them warns.
# Why it matters: tiles for pre-training are stretched to 8 bits, and clouds, roofs and water glint lie above the stretch.
#   Written, they turn black, edges appear where there are none, and the two ways of preparing the same scene differ by 255.
set -euo pipefail
cd "$(mktemp -d)"
python3 -m venv env
env/bin/pip install -q --disable-pip-version-check rasterio==1.4.4 numpy==2.4.6 2>/dev/null
cat > see.py <<'PY'
import numpy as np
import rasterio
from rasterio.transform import from_origin
from rasterio.vrt import WarpedVRT
from rasterio.warp import reproject

VALUES = np.array([[-5, 1.5, 200.6, 255.6, 256, 300]], np.float32)
PLACE = {"crs": "EPSG:32633", "transform": from_origin(500_000, 5_000_000, 10, 10)}
FILE = {"driver": "GTiff", "height": 1, "width": VALUES.shape[1], "count": 1} | PLACE
with rasterio.open("float.tif", "w", dtype="float32", **FILE) as sink:
    sink.write(VALUES, 1)
with rasterio.open("byte.tif", "w", dtype="uint8", **FILE) as sink:
    sink.write(VALUES, 1)
with rasterio.open("byte.tif") as source:
    written = source.read(1)[0].tolist()
with rasterio.open("float.tif") as source, WarpedVRT(source, dtype="uint8") as view:
    viewed = view.read(1)[0].tolist()
warped = np.zeros(VALUES.shape, np.uint8)
src, dst = ({f"{end}_{key}": value for key, value in PLACE.items()} for end in ("src", "dst"))
reproject(VALUES, warped, **src, **dst)
print(f"values {VALUES[0].tolist()}\nwrite {written}\nreproject {warped[0].tolist()}\nWarpedVRT {viewed}")
assert warped[0].tolist() == viewed == [0, 2, 201, 255, 255, 255]
assert written == [251, 1, 200, 255, 0, 44], "the behaviour has changed"
PY
env/bin/python see.py

#!/usr/bin/env bash
# netCDF4 and xarray do not agree on which pixels of a NetCDF file are missing: white ones, invalid ones, those never written.
#
# Versions: netCDF4 1.7.5.1.post1, xarray 2026.9.0, numpy 2.4.6, Python 3.11.
# Expected: one answer, as both are said to decode the same conventions: what the file calls invalid or never wrote is missing,
#   and no value of an 8-bit image is, unless the file says so.
# Happens: xarray passes over valid_range, and gives reflectances of -0.05 and 320 of a band that ends at 100; what was never
#   written is 9.97e36 to it, a pixel. netCDF4 masks both; but it also masks every 255 of an unsigned 8-bit image that declares no
#   fill value. No warning by either.
# Why it matters: satellite products rely on valid_range and leave swaths unwritten. By xarray, means and deviations of a data
#   set are infinite or wrong by orders, and a masked autoencoder paints 1e36. By netCDF4, clouds and snow are the holes: filled
#   with 0 they are black. Features of one encoder differ by the reader that packed the shards.
set -euo pipefail
cd "$(mktemp -d)"
python3 -m venv env
env/bin/pip install -q --disable-pip-version-check netcdf4==1.7.5.1.post1 xarray==2026.9.0 numpy==2.4.6 2>/dev/null
cat > see.py <<'PY'
import netCDF4
import numpy as np
import xarray

with netCDF4.Dataset("scene.nc", "w") as file:
    file.set_auto_maskandscale(False)
    file.createDimension("pixel", 5)
    band = file.createVariable("reflectance", "i2", ("pixel",), fill_value=-9999)
    band.setncatts({"scale_factor": np.float32(0.01), "valid_range": np.array([0, 10000], "i2")})
    band.set_auto_maskandscale(False)
    band[:] = [0, 10000, -9999, 32000, -5]
    image = file.createVariable("image", "u1", ("pixel",))
    image.set_auto_maskandscale(False)
    image[:] = [0, 1, 128, 254, 255]
    swath = file.createVariable("swath", "f4", ("pixel",))
    swath[:3] = [1, 2, 3]

names = "reflectance", "image", "swath"
with netCDF4.Dataset("scene.nc") as file:
    theirs = {name: np.ma.getmaskarray(file[name][:]).tolist() for name in names}
    for name in names:
        print(f"netCDF4 {name}: {file[name][:]}")
scene = xarray.open_dataset("scene.nc")
own = {name: np.isnan(scene[name].values.astype(float)).tolist() for name in names}
for name in names:
    print(f"xarray  {name}: {scene[name].values}")
assert theirs["reflectance"] == [False, False, True, True, True], "the behaviour has changed"
assert own["reflectance"] == [False, False, True, False, False], "the behaviour has changed"
assert theirs["image"] == [False, False, False, False, True], "the behaviour has changed"
assert own["image"] == [False] * 5, "the behaviour has changed"
assert theirs["swath"] == [False, False, False, True, True], "the behaviour has changed"
assert own["swath"] == [False] * 5 and scene["swath"].values[3] > 9e36, "the behaviour has changed"
PY
env/bin/python see.py

#!/usr/bin/env bash
# A zarr array that is shrunk and grown again shows old values where HDF5 shows the fill value.
#
# Versions: zarr 3.1.6, h5py 3.16.0, numpy 2.4.6, Python 3.11.
# Expected: elements that resize() adds hold the fill value, as they do in a new array and in HDF5.
# Happens: shrinking removes only chunks that lie outside altogether. The chunk at the edge keeps what was beyond it, and
#   growing brings it back: the end of the last chunk is old, everything after it is the fill value.
# Why it matters: feature stores and queues are cut back to the last good step after a crash and written on, or sized up first
#   and filled by workers. "Not written yet" is told by the fill value (NaN, -1), and a few rows of another checkpoint pass
#   for features of this one.
set -euo pipefail
cd "$(mktemp -d)"
python3 -m venv env
env/bin/pip install -q --disable-pip-version-check zarr==3.1.6 h5py==3.16.0 numpy==2.4.6 2>/dev/null
cat > see.py <<'PY'
import h5py
import numpy as np
import zarr

array = zarr.create_array(store=zarr.storage.MemoryStore(), shape=(10,), chunks=(8,), dtype="f4", fill_value=np.nan)
array[:] = 7
array.resize((5,))
array.resize((10,))
by_zarr = array[:]
with h5py.File("file.h5", "w") as file:
    twin = file.create_dataset("x", (10,), "f4", maxshape=(None,), chunks=(8,), fillvalue=np.nan)
    twin[:] = 7
    twin.resize((5,))
    twin.resize((10,))
    by_hdf5 = twin[:]
print(f"7 everywhere, shrunk to 5, grown to 10\nzarr {by_zarr}\nHDF5 {by_hdf5}")
assert np.isnan(by_hdf5[5:]).all()
assert (by_zarr[:8] == 7).all() and np.isnan(by_zarr[8:]).all(), "the behaviour has changed"
PY
env/bin/python see.py

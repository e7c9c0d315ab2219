#!/usr/bin/env bash
# A virtual HDF5 data set reads as zeros where one of its source files is missing: no error, no warning, and the shape stays.
#
# Versions: h5py 3.16.0, numpy 2.4.6, Python 3.11.
# Expected: reading a part whose source file is not there raises, as opening that file does.
# Happens: HDF5 fills what it cannot find: of three shards of ten images, with the middle one away, images 10 to 19 are zeros. So it is
#   for a source whose data set has another name; one that has become shorter raises. virtual_sources() lists the sources as before;
#   nothing in h5py tells which of them are there. A fill value given to create_virtual_dataset is read in their place.
# Why it matters: virtual data sets join shards of microscopes, detectors and simulations without a copy. A shard not synchronized to
#   one node becomes black images there, with labels from elsewhere. Give fillvalue=NaN or one that no sample has, and look for it, or
#   open all of virtual_sources() before training.
set -euo pipefail
cd "$(mktemp -d)"
python3 -m venv env
env/bin/pip install -q --disable-pip-version-check h5py==3.16.0 numpy==2.4.6 2>/dev/null
cat > see.py <<'PY'
from pathlib import Path

import h5py
import numpy as np

for shard in range(3):
    with h5py.File(f"shard{shard}.h5", "w") as file:
        file["images"] = np.full((10, 4, 4), 1 + shard, np.uint8)


def join(path: str, **options: object) -> None:
    layout = h5py.VirtualLayout((30, 4, 4), np.uint8)
    for shard in range(3):
        layout[10 * shard : 10 * shard + 10] = h5py.VirtualSource(f"shard{shard}.h5", "images", (10, 4, 4))
    with h5py.File(path, "w") as file:
        file.create_virtual_dataset("images", layout, **options)


def seen(path: str) -> list[int]:
    """The value of the first image of each shard."""
    with h5py.File(path) as file:
        assert file["images"].shape == (30, 4, 4) and len(file["images"].virtual_sources()) == 3
        return file["images"][::10, 0, 0].tolist()


join("all.h5"), join("marked.h5", fillvalue=255)
print("with all shards:", seen("all.h5"))
assert seen("all.h5") == [1, 2, 3]

Path("shard1.h5").rename("elsewhere.h5")
print("without the second:", seen("all.h5"), "and with a fill value:", seen("marked.h5"))
assert seen("all.h5") == [1, 0, 3] and seen("marked.h5") == [1, 255, 3], "the behaviour has changed"

with h5py.File("shard1.h5", "w") as file:
    file["pictures"] = np.full((10, 4, 4), 2, np.uint8)
print("with its data set under another name:", seen("all.h5"))
assert seen("all.h5") == [1, 0, 3], "the behaviour has changed"

with h5py.File("shard1.h5", "w") as file:
    file["images"] = np.full((4, 4, 4), 2, np.uint8)
try:
    seen("all.h5"), h5py.File("all.h5")["images"][:]
except OSError as error:
    print("with four of its ten images:", error)
else:
    raise AssertionError("the behaviour has changed")
PY
env/bin/python see.py

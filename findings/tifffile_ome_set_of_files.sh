#!/usr/bin/env bash
# tifffile's imread of one file of a multi-file OME-TIFF gives all files of the set: a held-out file brings the training frames.
#
# Versions: tifffile 2026.3.3, pillow 13.0.0, numpy 2.4.6, Python 3.11.
# Expected: the planes that the named file holds. Pillow gives those.
# Happens: in such a set (microscopes write a file for each time point or channel) every file describes the whole set, and
#   imread reads the others from the same folder: three files of one plane are three copies of one array of three planes. A file
#   that is moved away from them, or read from bytes as out of a tar, has zeros in place of their planes, and a line in the log.
# Why it matters: split by file into train and val, every split holds every frame; a loader that
#   takes plane 0 gives the same image for every file of the set. From shards, two of three planes of each sample are black.
set -euo pipefail
cd "$(mktemp -d)"
python3 -m venv env
env/bin/pip install -q --disable-pip-version-check tifffile==2026.3.3 pillow==13.0.0 numpy==2.4.6 2>/dev/null
cat > see.py <<'PY'
import io
import logging
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

logging.disable()
SIZES = 'DimensionOrder="XYZCT" Type="uint8" SizeX="16" SizeY="16" SizeZ="1" SizeC="1" SizeT="3"'
PLANE = '<TiffData FirstT="{0}" IFD="0" PlaneCount="1"><UUID FileName="{0}.ome.tif">urn:uuid:{0}</UUID></TiffData>'
planes = "".join(PLANE.format(time) for time in range(3))
for time in range(3):
    begin = f'<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="urn:uuid:{time}">'
    pixels = f'<Pixels ID="Pixels:0" {SIZES}><Channel ID="Channel:0" SamplesPerPixel="1"/>{planes}</Pixels>'
    about = f'{begin}<Image ID="Image:0">{pixels}</Image></OME>'
    frame = np.full((16, 16), 10 * (time + 1), np.uint8)
    tifffile.imwrite(f"{time}.ome.tif", frame, description=about, metadata=None)


def levels(planes):
    return np.atleast_3d(planes).reshape(-1, 16, 16)[:, 0, 0].tolist()


for time in range(3):
    with Image.open(f"{time}.ome.tif") as image:
        own = np.asarray(image)
        assert image.n_frames == 1
    assert (own == 10 * (time + 1)).all()
    read = tifffile.imread(f"{time}.ome.tif")
    print(f"{time}.ome.tif: Pillow {levels(own)}, imread {read.shape} {levels(read)}")
    assert levels(read) == [10, 20, 30], "the behaviour has changed"
data = Path("2.ome.tif").read_bytes()
alone = tifffile.imread(io.BytesIO(data))
print(f"2.ome.tif from its bytes: {alone.shape} {levels(alone)}")
assert levels(alone) == [0, 0, 30], "the behaviour has changed"
PY
env/bin/python see.py

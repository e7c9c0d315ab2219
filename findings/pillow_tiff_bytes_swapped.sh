#!/usr/bin/env bash
# Pillow reads compressed big-endian TIFFs of signed and floating-point pixels with their bytes swapped.
#
# Versions: pillow 13.0.0, tifffile 2026.3.3, numpy 2.4.6, Python 3.11.
# Expected: the byte order of a TIFF is a matter of its header; 500 reads as 500 whether the file is little- or big-endian,
#   compressed or not. So it is for uncompressed files, and for unsigned 16 bits compressed.
# Happens: int16, int32 and float32 in a big-endian file with deflate compression come out with swapped bytes: 500 as -3071,
#   as -201261056, as 9e-41. No error, no warning; the size, the mode and the smallest number 0 are right.
# Why it matters: elevation, bathymetry, CT in Hounsfield units and depth are kept as signed or float TIFFs; big-endian files
#   come from ImageJ among others, and archives compress them. A loader that scales by minimum and maximum turns them into
#   plausible noise; an encoder learns the order of bytes.
set -euo pipefail
cd "$(mktemp -d)"
python3 -m venv env
env/bin/pip install -q --disable-pip-version-check pillow==13.0.0 tifffile==2026.3.3 numpy==2.4.6 2>/dev/null
cat > see.py <<'PY'
import numpy as np
import tifffile
from PIL import Image

swapped = {}
for kind in ("uint16", "int16", "int32", "float32"):
    true = np.array([[0, 500, 1000, 30000]], kind)
    for order in "<>":
        for compression in (None, "zlib"):
            tifffile.imwrite("a.tif", true, byteorder=order, compression=compression, photometric="minisblack")
            assert (tifffile.imread("a.tif") == true).all()
            with Image.open("a.tif") as image:
                pixels = np.asarray(image)
            swapped[kind, order, compression] = not (pixels == true).all()
            if swapped[kind, order, compression]:
                assert (pixels.astype(kind) == true.byteswap()).all()
                print(f"{kind}, big-endian, {compression}: Pillow {pixels.tolist()}, tifffile {true.tolist()}")
wrong = {case for case, is_swapped in swapped.items() if is_swapped}
assert wrong == {(kind, ">", "zlib") for kind in ("int16", "int32", "float32")}, f"the behaviour has changed: {wrong}"
PY
env/bin/python see.py

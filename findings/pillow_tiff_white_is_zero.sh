#!/usr/bin/env bash
# Pillow turns the greys of a white-is-zero TIFF the right way round at 8 bits, and leaves them a negative at 16.
#
# Versions: pillow 13.0.0, tifffile 2026.3.3, numpy 2.4.6, Python 3.11.
# Expected: where a TIFF's PhotometricInterpretation says that zero is white, a reader that opens it as an image gives light for
#   light whatever the number of bits; or it never inverts, and says that it gives stored values.
# Happens: the same picture stored both ways: at 8 bits Pillow inverts (10 becomes 245), at 16 bits it gives the stored numbers,
#   and the negative of the picture with them. Both are opened as plain grey (L, I;16).
# Why it matters: radiographs, gels, scanned film and fax archives are stored white-is-zero. A data set that mixes 8- and 16-bit
#   files of one scanner is half negatives: brightness statistics cancel, and invariance to contrast inversion is learned from
#   a file format.
set -euo pipefail
cd "$(mktemp -d)"
python3 -m venv env
env/bin/pip install -q --disable-pip-version-check pillow==13.0.0 tifffile==2026.3.3 numpy==2.4.6 2>/dev/null
cat > see.py <<'PY'
import numpy as np
import tifffile
from PIL import Image

inverted = {}
for kind in (np.uint8, np.uint16):
    most = np.iinfo(kind).max
    stored = np.linspace(0, most, 6).astype(kind)[None]
    read = {}
    for photometric in ("minisblack", "miniswhite"):
        tifffile.imwrite("a.tif", stored, photometric=photometric)
        with Image.open("a.tif") as image:
            read[photometric] = np.asarray(image)
            mode = image.mode
    assert (read["minisblack"] == stored).all()
    inverted[kind] = bool((read["miniswhite"] == most - stored).all())
    print(f"{kind.__name__}, mode {mode}: stored {stored[0].tolist()}, white is zero: {read['miniswhite'][0].tolist()}")
    assert inverted[kind] or (read["miniswhite"] == stored).all()
assert inverted == {np.uint8: True, np.uint16: False}, "the behaviour has changed"
PY
env/bin/python see.py

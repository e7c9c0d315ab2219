#!/usr/bin/env bash
# tifffile's imread gives wrong pixels, or leaves the page out, where one page of a TIFF stack is stored with a predictor.
#
# Versions: tifffile 2026.3.3, imagecodecs 2026.3.6, pillow 13.0.0, numpy 2.4.6, Python 3.11.
# Expected: a multi-page TIFF of pages of one shape and type reads as those pages, however each is compressed; TIFF leaves that
#   to the page. Pillow reads them so, and so does tifffile page by page.
# Happens: imread compares some pages of a stack, not all, before it takes it for uniform. A page between them is then decoded
#   by the first page's tags: differences of neighbours come out as pixels (fifth of ten). Where the comparison meets the page
#   (third of four), it is another series: imread gives three pages, and the last stands where the third was. No warning.
# Why it matters: programs choose the storage page by page, or stacks get appended to by another program. In microscopy stacks
#   and time series some frames are then noise of the right size, or labels and time stamps that are matched by index belong to
#   the frame before; a masked autoencoder learns to paint both.
set -euo pipefail
cd "$(mktemp -d)"
python3 -m venv env
env/bin/pip install -q --disable-pip-version-check tifffile==2026.3.3 imagecodecs==2026.3.6 pillow==13.0.0 numpy==2.4.6 2>/dev/null
cat > see.py <<'PY'
import numpy as np
import tifffile
from PIL import Image, ImageSequence

frame = np.add.outer(np.arange(64), np.arange(64)).astype(np.uint8)
seen = {}
for pages, odd in ((10, 5), (4, 2)):
    true = np.stack([frame + np.uint8(number) for number in range(pages)])
    with tifffile.TiffWriter("stack.tif") as sink:
        for number, page in enumerate(true):
            kind = {"photometric": "minisblack", "compression": "zlib", "predictor": number == odd}
            sink.write(page, metadata=None, contiguous=False, **kind)
    with Image.open("stack.tif") as image:
        assert (np.stack([np.array(one) for one in ImageSequence.Iterator(image)]) == true).all()
    with tifffile.TiffFile("stack.tif") as file:
        assert (np.stack([one.asarray() for one in file.pages]) == true).all()
    read = tifffile.imread("stack.tif")
    seen[pages] = len(read), (read[odd] != true[odd]).mean()
    print(f"{pages} pages, number {odd} with a predictor: Pillow and page by page all right; imread {read.shape}")
    print(f"  first pixels {read[:, 0, 0].tolist()}; page {odd}: {seen[pages][1]:.0%} of pixels wrong")
assert seen[10][0] == 10 and seen[10][1] > 0.9, "the behaviour has changed"
assert seen[4][0] == 3, "the behaviour has changed"
PY
env/bin/python see.py

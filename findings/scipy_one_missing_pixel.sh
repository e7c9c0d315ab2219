#!/usr/bin/env bash
# One missing pixel makes most of an image missing in scipy.ndimage: zoom, rotate and shift by splines, and uniform_filter of 3 by 3.
#
# Versions: scipy 1.17.1, scikit-image 0.26.0, numpy 2.4.6, Python 3.11.
# Expected: a NaN reaches as far as the kernel does: a few pixels, as with gaussian_filter, with order=1, and with any convolution.
# Happens: zoom, rotate, shift and map_coordinates fit a cubic spline by default, by a recursive filter along each row, then each
#   column: of 256x256 pixels with one NaN, 96 to 100 % come out as NaN. uniform_filter, a mean of 3 by 3 pixels, keeps a running sum:
#   all that lies right of the NaN in its rows is NaN, and then all that lies below that: 93 % here, and more the nearer it is to the
#   upper left corner. scikit-image's resize and rescale with order=3 call zoom; its rotate, of its own code, does not.
# Why it matters: NaN is how depth maps, satellite scenes, elevation models and microscopes' stitched fields say "nothing here". Made
#   smaller for pre-training such images come out empty, by nan_to_num as all zeros, and a loss that leaves NaNs out trains on the few
#   that had none. Order 1 or less, a mask resized beside the image, or filling first.
set -euo pipefail
cd "$(mktemp -d)"
python3 -m venv env
env/bin/pip install -q --disable-pip-version-check scipy==1.17.1 scikit-image==0.26.0 numpy==2.4.6 2>/dev/null
cat > see.py <<'PY'
import warnings

import numpy as np
from scipy import ndimage
from skimage import transform

image = np.random.default_rng(0).random((256, 256))
image[10, 10] = np.nan
MEAN = np.full((3, 3), 1 / 9)
EXPECTED = {  # share of pixels that are NaN: at least, at most
    "zoom(0.5)": (lambda: ndimage.zoom(image, 0.5), 0.9, 1),
    "zoom(0.5, order=1)": (lambda: ndimage.zoom(image, 0.5, order=1), 0, 1e-3),
    "rotate(5)": (lambda: ndimage.rotate(image, 5, reshape=False), 0.9, 1),
    "shift(0.5)": (lambda: ndimage.shift(image, 0.5), 0.9, 1),
    "uniform_filter(3)": (lambda: ndimage.uniform_filter(image, 3), 0.9, 0.95),
    "convolve with a mean of 3x3": (lambda: ndimage.convolve(image, MEAN), 9 / 256**2, 9 / 256**2),
    "gaussian_filter(1)": (lambda: ndimage.gaussian_filter(image, 1), 81 / 256**2, 81 / 256**2),
    "skimage resize, order=3": (lambda: transform.resize(image, (128, 128), order=3), 0.9, 1),
    "skimage resize, order=1": (lambda: transform.resize(image, (128, 128), order=1), 0, 1e-2),
    "skimage rotate, order=3": (lambda: transform.rotate(image, 5, order=3), 0, 1e-2),
}
for name, (made, least, most) in EXPECTED.items():
    with warnings.catch_warnings(record=True):
        share = np.isnan(made()).mean()
    print(f"{name}: {100 * share:.3f} % of the pixels are NaN")
    assert least <= share <= most, "the behaviour has changed"

smooth = np.isnan(ndimage.uniform_filter(image, 3))
assert smooth[9:, 9:].mean() > 0.99 and smooth.sum() == smooth[9:, 9:].sum()
print("uniform_filter: all NaNs lie right of and below the missing pixel")
PY
env/bin/python see.py

#!/usr/bin/env bash
# numpy's mean of float32 columns stops counting at 2^24 rows: the mean of 33,554,432 ones is 0.5.
#
# Versions: numpy 2.4.6, Python 3.11.
# Expected: x.mean(axis=0) of an (N, 3) float32 array of ones is 1 for every N, as x.mean() is.
# Happens: sums along the first axis are kept in float32, one row after the other. At 16,777,216 another 1 is rounded away,
#   the sum stands still, and the mean falls as 1 / N. Pairwise summation, which saves x.mean(), is for the last axis only.
#   Sums of small numbers go wrong earlier, and in both directions: dark images (mean 5 of 255) come out 10 % too bright at 335
#   images of 224x224, and 16 % too dark at 800. The standard deviation goes with it.
# Why it matters: `pixels.reshape(-1, 3).mean(0)` is how channel means and deviations for normalisation are computed. They then
#   depend on how many images were counted, in silence, and runs that normalise by them are not comparable.
set -euo pipefail
cd "$(mktemp -d)"
python3 -m venv env
env/bin/pip install -q --disable-pip-version-check numpy==2.4.6 2>/dev/null
cat > see.py <<'PY'
import numpy as np

for rows in (2**23, 2**24, 2**25):
    ones = np.broadcast_to(np.float32(1), (rows, 3))  # takes no memory; a real array gives the same
    print(f"{rows} rows of ones: mean {ones.mean()}, of columns {ones.mean(axis=0)}")
    assert ones.mean() == 1
    assert (ones.mean(axis=0) == min(1, 2**24 / rows)).all(), "the behaviour has changed"

for images in (335, 800):
    dark = np.empty((images * 224 * 224, 2), np.float32)
    dark[:] = (np.random.default_rng(0).poisson(5, (len(dark), 1)) / 255).astype(np.float32)
    true, seen = dark[:, 0].mean(dtype=np.float64), dark.mean(axis=0)[0]
    print(f"{images} dark images: mean {true:.5f}, of columns {seen:.5f}, {seen / true - 1:+.0%}")
    assert abs(seen / true - 1) > 0.05, "the behaviour has changed"
PY
env/bin/python see.py

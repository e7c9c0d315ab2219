#!/usr/bin/env bash
# safetensors 0.8 stores NumPy arrays in Fortran's order scrambled, where 0.7 stored them right: PCA components, probes' weights, data frames.
#
# Versions: safetensors 0.8.0 and 0.7.0, scikit-learn 1.9.1, scipy 1.17.1, pandas 3.1.1, numpy 2.4.6, Python 3.11.
# Expected: load_file gives what save_file of safetensors.numpy was given, in whatever order an array lies in memory, as numpy.save and
#   safetensors 0.7 do; or an error, as safetensors.torch raises. Its documentation asks for contiguous arrays, which these are.
# Happens: 0.8 writes the memory as it lies, under a shape that is read row by row. The components_ of a PCA (solver "full", "randomized"),
#   the coef_ of a LogisticRegression, eigenvectors of scipy and columns of a data frame lie column by column: 8 components of 32 numbers
#   come back with the same shape, type, mean, deviation, smallest and largest value, nearly all in other places. No error, no warning.
#   .T of any array does the same.
# Why it matters: safetensors is how frozen features, whitening, linear probes and prototypes are kept between the stages of a sweep. After
#   an upgrade a projection is onto something else, kNN and probes fall for the arms whose array has this order, and files written before
#   stay right. numpy.ascontiguousarray before saving; what 0.8 wrote is mended by stored.reshape(shape[::-1]).T.
set -euo pipefail
cd "$(mktemp -d)"
python3 -m venv env
env/bin/pip install -q --disable-pip-version-check safetensors==0.8.0 scikit-learn==1.9.1 scipy==1.17.1 pandas==3.1.1 numpy==2.4.6 2>/dev/null
env/bin/pip install -q --disable-pip-version-check --no-deps --target older safetensors==0.7.0 2>/dev/null
cat > see.py <<'PY'
import sys

import numpy as np
import pandas as pd
import safetensors
import scipy.linalg
from safetensors.numpy import load_file, save_file
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression

features = np.random.default_rng(0).normal(size=(1000, 32)).astype(np.float32) * np.linspace(1, 3, 32, dtype=np.float32)
stored = {
    "components": PCA(8, svd_solver="full").fit(features).components_,
    "probe": LogisticRegression().fit(features, np.arange(1000) % 5).coef_,
    "eigenvectors": scipy.linalg.eigh(features.T @ features)[1],
    "frame": pd.DataFrame({name: features[:, name] for name in range(4)}).to_numpy(),
    "transposed": np.arange(24).reshape(2, 3, 4).T,
}
right = sys.argv[1] == "0.7.0"
assert safetensors.__version__ == sys.argv[1]
save_file(stored | {"by rows": features}, "stored.safetensors")
read = load_file("stored.safetensors")
assert (read["by rows"] == features).all()
for name, array in stored.items():
    assert array.flags.f_contiguous
    back = read[name]
    kept = float((back == array).mean())
    print(f"safetensors {safetensors.__version__}, {name}: {array.shape} to {back.shape}, {kept:.0%} of the numbers in their places, "
          f"mean {array.mean():.4f} to {back.mean():.4f}, deviation {array.std():.4f} to {back.std():.4f}")
    assert back.shape == array.shape and back.dtype == array.dtype and (np.sort(back, axis=None) == np.sort(array, axis=None)).all()
    assert kept == 1 if right else kept < 0.1, "the behaviour has changed"
    assert right or (back.reshape(array.shape[::-1]).T == array).all()
if not right:
    turned = features @ stored["components"].T, features @ read["components"].T
    alike = [abs(np.corrcoef(one, other)[0, 1]) for one, other in zip(*(values.T for values in turned), strict=True)]
    print("correlation of each projection with the one it was stored as:", np.round(alike, 2))
PY
PYTHONPATH=older env/bin/python see.py 0.7.0
env/bin/python see.py 0.8.0

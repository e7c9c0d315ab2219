#!/usr/bin/env bash
# scikit-learn's PCA of tall float32 data loses its small variances to its mean: 9.3 becomes 117, and 1.0 becomes 0.
#
# Versions: scikit-learn 1.9.1, numpy 2.4.6, Python 3.11.
# Expected: components do not depend on the mean, which PCA takes away; svd_solver="full" gives them in float32, too.
# Happens: the default takes the solver covariance_eigh where there are ten times as many samples as features. It multiplies the
#   data by itself as it is, in float32, and takes the mean away from the products, of which few digits are left. With means of
#   1000 and deviations of 1 to 3, twelve times the true variance comes first, and the last variance is 0; means of 100 turn the
#   first components by 4 to 8 degrees. Float64, or data that are centered first, give the right ones.
# Why it matters: such are raw counts of 12 and 16 bits, pressures in hPa, and channels of frozen ViTs whose activations are
#   massive and nearly constant. Whitening divides by the variance that is 0; PCA targets of patches, PCA before kNN and
#   pictures of components show rounding; ranks of embeddings count it. Nothing warns.
set -euo pipefail
cd "$(mktemp -d)"
python3 -m venv env
env/bin/pip install -q --disable-pip-version-check scikit-learn==1.9.1 numpy==2.4.6 2>/dev/null
cat > see.py <<'PY'
import numpy as np
from sklearn.decomposition import PCA

noise = np.random.default_rng(0).standard_normal((10_000, 64)) * np.linspace(1, 3, 64)


def first_and_last(fitted):
    return [round(float(fitted.explained_variance_[at]), 2) for at in (0, -1)]


for mean in (0, 100, 1000):
    data = (noise + mean).astype(np.float32)
    exact, single, usual = PCA().fit(data.astype(np.float64)), PCA(svd_solver="full").fit(data), PCA().fit(data)
    assert usual._fit_svd_solver == "covariance_eigh"
    cosines = np.abs((exact.components_ * usual.components_).sum(axis=1))[:4]
    angles = np.degrees(np.arccos(cosines.clip(max=1))).round().astype(int).tolist()
    print(f"mean {mean}: variances, first and last: float64 {first_and_last(exact)}, float32 by 'full' {first_and_last(single)},")
    print(f"  by default {first_and_last(usual)}, whose first four components are turned by {angles} degrees")
    np.testing.assert_allclose(single.explained_variance_, exact.explained_variance_, rtol=1e-4)
    np.testing.assert_allclose(PCA().fit(data - np.float32(mean)).explained_variance_, exact.explained_variance_, rtol=1e-4)
first, last = first_and_last(usual)
assert first > 5 * exact.explained_variance_[0], "the behaviour has changed"
assert last < 0.1 * exact.explained_variance_[-1], "the behaviour has changed"
PY
env/bin/python see.py

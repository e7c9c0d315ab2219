#!/usr/bin/env bash
# scikit-learn's normalize turns rows of float16 features into zeros, or leaves them as they are: it sums their squares in float16.
#
# Versions: scikit-learn 1.9.1, numpy 2.4.6, Python 3.11.
# Expected: rows of length 1, within float16's precision, as of the same features in float32; or an error, as other estimators and
#   metrics convert float16 first (StandardScaler, PCA, cosine_similarity).
# Happens: normalize and Normalizer take float16 and keep it. The sum of a row's squares is beyond 65504 once its length is beyond 256:
#   it becomes infinite, and the row zero. Of 768 features with a deviation of 20 all rows become zero, without a warning; of 5
#   none. At the other end squares below 6e-8 vanish, the length is 0, which is taken for 1: rows of features of 1e-4 keep their length.
# Why it matters: embeddings are stored in float16 to halve their size. Cosine kNN, retrieval and k-means normalize them first. Encoders
#   whose features are long, ViTs before their final norm, supervised CNNs, fall to chance, others in the same table do not: what
#   looks like a bad arm is a type. Convert to float32 before normalizing.
set -euo pipefail
cd "$(mktemp -d)"
python3 -m venv env
env/bin/pip install -q --disable-pip-version-check scikit-learn==1.9.1 numpy==2.4.6 2>/dev/null
cat > see.py <<'PY'
import warnings

import numpy as np
from sklearn.metrics.pairwise import cosine_similarity
from sklearn.preprocessing import StandardScaler, normalize

warnings.simplefilter("error")  # there are none
directions = np.random.default_rng(0).standard_normal((1000, 768))


def lengths(deviation: float, kind: type) -> np.ndarray:
    """-> (1000,): the lengths of normalized rows"""
    made = normalize((deviation * directions).astype(kind))
    assert made.dtype == kind
    return np.linalg.norm(made.astype(np.float64), axis=1)


for deviation, zeros, ones in ((1e-4, 0, 0), (1, 0, 1000), (5, 0, 1000), (20, 1000, 0)):
    whole, half = lengths(deviation, np.float32), lengths(deviation, np.float16)
    print(f"deviation {deviation:g}: mean length of normalized rows {whole.mean():.3f} in float32, {half.mean():.4f} in float16,", end=" ")
    print(f"{(half == 0).sum()} of 1000 rows zero")
    assert abs(whole - 1).max() < 1e-5
    assert (half == 0).sum() == zeros and (abs(half - 1) < 0.01).sum() == ones, "the behaviour has changed"

long = (20 * directions).astype(np.float16)
assert np.allclose(np.diag(cosine_similarity(long[:50])), 1)
assert np.allclose(StandardScaler().fit_transform(long).astype(np.float64).std(0), 1, atol=0.01)
print("cosine_similarity and StandardScaler of the same rows: as of float32")
PY
env/bin/python see.py

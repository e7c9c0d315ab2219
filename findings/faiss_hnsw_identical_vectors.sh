#!/usr/bin/env bash
# A few identical vectors make faiss's HNSW index miss the nearest neighbours of all the others.
#
# Versions: faiss-cpu 1.15.1, numpy 2.4.6, Python 3.11.
# Expected: the recall of an HNSW graph for a query depends on the vectors near it; copies of one vector far away cost memory.
# Happens: 10,000 Gaussian vectors of 64 numbers: the nearest neighbour is found for 99.8 % of queries beside them. With 1,000
#   copies of one other vector added (a tenth), a fifth of queries that have nothing to do with it no longer finds its own, at the
#   same settings (M 32, efConstruction 40, efSearch 64). The copies fill each other's lists of neighbours and those of others; a
#   part of the graph cannot be reached any more, so a beam of 4,096 (efSearch) finds no more than one of 512.
# Why it matters: black frames, blank scans, failed downloads and padded clips all embed as one vector. kNN evaluation, retrieval,
#   deduplication and nearest-neighbour objectives over such a store lose recall for everything else, with no message; two
#   encoders, one of which maps blanks to one point and one which does not, are compared by their index.
set -euo pipefail
cd "$(mktemp -d)"
python3 -m venv env
env/bin/pip install -q --disable-pip-version-check faiss-cpu==1.15.1 numpy==2.4.6 2>/dev/null
cat > see.py <<'PY'
import faiss
import numpy as np

faiss.omp_set_num_threads(1)
draw = np.random.default_rng(0)
vectors = draw.normal(size=(10_000, 64)).astype(np.float32)
blank = draw.normal(size=(1, 64)).astype(np.float32)
beside = draw.choice(len(vectors), 1000, replace=False)
queries = vectors[beside] + 0.01 * draw.normal(size=(1000, 64)).astype(np.float32)


def recall(stored: np.ndarray, beam: int) -> float:
    flat = faiss.IndexFlatL2(64)
    flat.add(stored)
    assert (flat.search(queries, 1)[1][:, 0] == beside).all()  # the copies are nearest to none of the queries
    graph = faiss.IndexHNSWFlat(64, 32)
    graph.hnsw.efConstruction, graph.hnsw.efSearch = 40, beam
    graph.add(stored)
    return float((graph.search(queries, 1)[1][:, 0] == beside).mean())


seen = {}
for copies in (0, 1000):
    for beam in (64, 512, 4096):
        seen[copies, beam] = recall(np.concatenate([vectors, np.repeat(blank, copies, axis=0)]), beam)
        print(f"{copies:4} copies of another vector, efSearch {beam:4}: the nearest is found for {seen[copies, beam]:.1%}")
assert seen[0, 64] > 0.99
assert seen[1000, 64] < 0.9 and seen[1000, 4096] < 0.9, "the behaviour has changed"
PY
env/bin/python see.py

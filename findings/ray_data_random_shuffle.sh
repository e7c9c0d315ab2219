#!/usr/bin/env bash
# Ray Data's random_shuffle gives every output block of one size the same interleaving of source blocks.
#
# Versions: ray 2.60.0, numpy 2.4.6, pyarrow 26.0.1, Python 3.11.
# Expected: after Dataset.random_shuffle(), whether row k of an output block comes from source block s is independent
#   from one output block to the next.
# Happens: the pattern is one and the same in all output blocks of equal size. Where row k of the first block comes
#   from source block 7, row k of every block does, with seed=0 and with seed=None. Only which row of that source block
#   it is differs.
# Why it matters: shards are often written class by class, site by site or video by video. Workers that read different
#   blocks in step (streaming_split, one block a worker) then see samples of the same source at the same step: negatives
#   of a contrastive loss come from one class, batch statistics from one site, and the run still calls itself shuffled.
set -euo pipefail
cd "$(mktemp -d)"
python3 -m venv env
env/bin/pip install -q --disable-pip-version-check "ray[data]==2.60.0" numpy==2.4.6 pyarrow==26.0.1 2>/dev/null
cat > shuffle.py <<'PY'
import logging

import numpy as np
import ray

BLOCKS, ROWS = 8, 1000
ray.init("local", num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
logging.getLogger("ray.data").setLevel(logging.ERROR)
for seed in (0, None):
    shuffled = ray.data.range(BLOCKS * ROWS, override_num_blocks=BLOCKS).random_shuffle(seed=seed).materialize()
    blocks = [ray.get(ref)["id"].to_numpy() for bundle in shuffled.iter_internal_ref_bundles() for ref in bundle.block_refs]
    assert sorted(np.concatenate(blocks)) == list(range(BLOCKS * ROWS))
    source = np.array([block // ROWS for block in blocks if len(block) == ROWS])
    same = (source == source[0]).mean()
    print(f"seed {seed}: {len(source)} blocks of {ROWS} rows; rows whose source block is that of the first: {same:.3f}")
    print(f"  source of rows 0 to 9: block 0 {source[0, :10]}, block 5 {source[5, :10]}; by chance {1 / BLOCKS:.3f}")
    assert len(source) == BLOCKS
    assert same == 1.0, "the behaviour has changed"
PY
env/bin/python shuffle.py 2> log || { cat log; exit 1; }
# Seen:
#   seed 0: 8 blocks of 1000 rows; rows whose source block is that of the first: 1.000
#   seed None: 8 blocks of 1000 rows; rows whose source block is that of the first: 1.000

#!/usr/bin/env bash
# webdataset's shardshuffle shuffles once: every epoch has the same order of shards; detshuffle's too, once a DataLoader has workers.
#
# Versions: webdataset 1.0.2, torch 2.15.0 (CPU), numpy 2.4.6, Python 3.11.
# Expected: another order of shards in every epoch, as its "shuffle" and DistributedSampler's set_epoch make one think; with a
#   seed the same orders in every run.
# Happens: WebDataset(shardshuffle=8) draws a seed when it is made, where none is given, and begins each epoch with a generator at
#   that seed: one order for ever, with workers or without. detshuffle=True counts epochs, but in the copy of the data set that a
#   worker has, and a DataLoader forks new workers for each epoch: again one order, unless persistent_workers=True. A buffer of
#   samples behind it, shuffle(1000), mixes only what is near.
# Why it matters: shards hold what was crawled, filmed or scanned together. In each of 800 epochs the same shards meet: contrastive
#   losses see the same negatives, queues the same tails, and an epoch's curve has the same bumps. Order that should be noise
#   becomes part of an arm of the sweep.
set -euo pipefail
cd "$(mktemp -d)"
python3 -m venv env
env/bin/pip install -q --disable-pip-version-check webdataset==1.0.2 torch==2.15.0 numpy==2.4.6 2>/dev/null
cat > see.py <<'PY'
import warnings

import webdataset
from torch.utils.data import DataLoader

warnings.filterwarnings("ignore")
for shard in range(8):
    with webdataset.TarWriter(f"{shard}.tar") as sink:
        for number in range(4):
            sink.write({"__key__": f"{shard}{number}", "txt": f"{shard}{number}"})


def epochs(workers, persistent, **options):
    samples = webdataset.WebDataset("{0..7}.tar", shardshuffle=8, **options).decode().to_tuple("txt")
    loader = DataLoader(samples, batch_size=None, num_workers=workers, persistent_workers=persistent)
    return [[text for (text,) in loader] for _ in range(5)]


EXPECTED = {  # number of different orders of five epochs
    "no seed": ({}, [1, 1, 1]),
    "seed=1": ({"seed": 1}, [1, 1, 1]),
    "seed=1, detshuffle=True": ({"seed": 1, "detshuffle": True}, [5, 1, 5]),
}
for name, (options, expected) in EXPECTED.items():
    seen = []
    for workers, persistent in ((0, False), (2, False), (2, True)):
        orders = epochs(workers, persistent, **options)
        assert all(sorted(order) == sorted(orders[0]) and len(order) == 32 for order in orders)
        seen.append(len({tuple(order) for order in orders}))
    print(f"{name}: different orders of 5 epochs: {seen[0]} without workers, {seen[1]} with two, {seen[2]} with two that persist")
    assert [number > 1 for number in seen] == [number > 1 for number in expected], "the behaviour has changed"
PY
env/bin/python see.py

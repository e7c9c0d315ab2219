#!/usr/bin/env bash
# A StatefulDataLoader without workers resumes its epoch exactly, and then shuffles the next ones in another order.
#
# Versions: torchdata 0.11.0, torch 2.15.0, Python 3.11.
# Expected: as its documentation has it, state_dict and load_state_dict continue where a loader was. The loader is given a seeded
#   generator, so what follows is settled: the rest of this epoch, and every later one.
# Happens: the rest of the epoch is the same. With num_workers=0 the next epoch is another permutation than without the interruption,
#   and so are all after it; with one or more workers all are the same. On the way back the sampler's generator is set to where the
#   permutation was drawn from, and the draws differ from then on.
# Why it matters: laptops, debuggers and tests use num_workers=0: there a resumed pre-training sees other batches from the next epoch on,
#   and gives another loss curve than the undisturbed one, though the test that everybody writes, of the rest of the epoch, passes.
#   Orders that are a function of seed and epoch alone have nothing to restore.
set -euo pipefail
cd "$(mktemp -d)"
python3 -m venv env
env/bin/pip install -q --disable-pip-version-check torchdata==0.11.0 torch==2.15.0 numpy==2.4.6 2>/dev/null
cat > see.py <<'PY'
import warnings

import torch
from torchdata.stateful_dataloader import StatefulDataLoader

warnings.simplefilter("ignore")


def loader(workers):
    seeded = torch.Generator().manual_seed(0)
    return StatefulDataLoader(range(12), batch_size=4, shuffle=True, num_workers=workers, generator=seeded)


def batches(loaded):
    return [batch.tolist() for batch in loaded]


def main():
    for workers, expected in {0: [True, False, False], 1: [True] * 3, 2: [True] * 3}.items():
        whole = loader(workers)
        iterator = iter(whole)
        next(iterator)
        state = whole.state_dict()
        undisturbed = [batches(iterator), batches(whole), batches(whole)]
        resumed = loader(workers)
        resumed.load_state_dict(state)
        same = [batches(resumed) == epoch for epoch in undisturbed]
        print(f"num_workers={workers}: the rest of the epoch, and the next two, are the same: {same}")
        assert same == expected, "the behaviour has changed"


if __name__ == "__main__":
    main()
PY
env/bin/python see.py

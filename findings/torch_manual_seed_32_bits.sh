#!/usr/bin/env bash
# torch.manual_seed takes 64 bits, and on the CPU uses the lower 32: seed 1 and seed 1 + 2^32 draw the same numbers.
#
# Versions: torch 2.15.0 (CPU), numpy 2.4.6, Python 3.11.
# Expected: torch.manual_seed(seed), which takes and gives back (torch.initial_seed()) 64 bits, gives other numbers for
#   another seed. numpy's SeedSequence uses every bit, and numpy.random.seed refuses more than 32.
# Happens: the CPU's generator, a Mersenne twister, is initialised from the lower 32 bits; the others have no effect, on any
#   distribution, with the global generator and with one's own.
# Why it matters: `rank << 32 | seed` or `epoch * 2**32 + seed` looks like a safe way to keep streams apart, and gives all
#   ranks and epochs the same crops, masks and initial weights. Seeds that are 64-bit hashes of a spec collide as 32-bit ones
#   do: among 77,000 by even chance.
set -euo pipefail
cd "$(mktemp -d)"
python3 -m venv env
env/bin/pip install -q --disable-pip-version-check torch==2.15.0 numpy==2.4.6 2>/dev/null
cat > see.py <<'PY'
import numpy as np
import torch


def draws(seed: int) -> list[torch.Tensor]:
    torch.manual_seed(seed)
    assert torch.initial_seed() == seed
    return [torch.rand(4), torch.randn(4), torch.randperm(100), torch.nn.Linear(8, 8).weight.detach()]


for rank in range(1, 4):
    same = [torch.equal(one, other) for one, other in zip(draws(7), draws(rank << 32 | 7), strict=True)]
    print(f"rank {rank}, seed {rank << 32 | 7}: as of seed 7: rand, randn, randperm, Linear: {same}")
    assert all(same), "the behaviour has changed"
assert not torch.equal(draws(7)[0], draws(8)[0])
assert (np.random.default_rng(7).random(4) != np.random.default_rng(1 << 32 | 7).random(4)).all()
PY
env/bin/python see.py

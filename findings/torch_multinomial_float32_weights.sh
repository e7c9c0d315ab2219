#!/usr/bin/env bash
# torch.multinomial with ten million equal float32 weights draws the late ones a third more often than others.
#
# Versions: torch 2.15.0 (CPU), numpy 2.4.6, Python 3.11.
# Expected: equal weights are drawn equally often. 2^24 categories are allowed, and this is fewer.
# Happens: on the CPU the cumulated weights are summed in the weights' type, one after the other. Where the sum is
#   beyond 524,288, float32 has steps of 1/16, and a weight of 0.1 counts as 0.125; before that, with steps of 1/32, as 0.094.
#   The same weights in float64 are drawn evenly.
# Why it matters: sampling by weight (balancing classes, hard negatives, quality scores, mixtures of data sets) over millions
#   of samples prefers those that stand late in the list. Lists are sorted by shard or source, so it is a preference for
#   sources; nothing says so, and the weights themselves are right.
set -euo pipefail
cd "$(mktemp -d)"
python3 -m venv env
env/bin/pip install -q --disable-pip-version-check torch==2.15.0 numpy==2.4.6 2>/dev/null
cat > see.py <<'PY'
import torch

CATEGORIES, DRAWS = 10_000_000, 1_000_000
for kind in (torch.float64, torch.float32):
    torch.manual_seed(0)
    drawn = torch.multinomial(torch.full((CATEGORIES,), 0.1, dtype=kind), DRAWS, replacement=True)
    tenths = torch.bincount(drawn // (CATEGORIES // 10), minlength=10) / (DRAWS / 10)
    print(f"{kind}: how often each tenth is drawn, 1 is right: {[round(share, 2) for share in tenths.tolist()]}")
    spread = (tenths.max() / tenths.min()).item()
    assert (spread > 1.25) if kind == torch.float32 else (spread < 1.02), "the behaviour has changed"
PY
env/bin/python see.py

#!/usr/bin/env bash
# Asking torch for a checkpoint before the first step changes the training: Adam begins at step 2, and moves 26 % less.
#
# Versions: torch 2.15.0 (CPU), Python 3.11.
# Expected: get_state_dict and get_optimizer_state_dict of torch.distributed.checkpoint.state_dict, the documented way to save under
#   DDP, FSDP2 and tensor parallelism, read and change nothing: who saves a checkpoint of step 0 trains as who does not.
# Happens: an optimizer without state is given one by a real step with gradients of zero at a learning rate of zero. Weights stay;
#   Adam's count of steps does not go back: its first update is the second to it, and the correction of its moments is off until
#   some hundred steps later (AdamW's first update is 0.744 of the learning rate, the second 0.858). So does set_optimizer_state_dict, but
#   what it loads comes over it. SGD with dampening loses a part of its first update in the same way; without, it stays exact.
# Why it matters: checkpoints of step 0 are what one saves to compare with the untrained encoder, to let ASHA or PBT clone trials,
#   and what a run that may be preempted writes first. Such arms take a smaller start than others at the same seed and spec, and a
#   training resumed from its first checkpoint equals the disturbed run alone. Save first after a step, or build the state by hand.
set -euo pipefail
cd "$(mktemp -d)"
python3 -m venv env
env/bin/pip install -q --disable-pip-version-check torch==2.15.0 numpy==2.4.6 2>/dev/null
cat > see.py <<'PY'
import torch
from torch.distributed.checkpoint.state_dict import get_state_dict


def updates(save: bool, kind: type, **settings) -> list[float]:
    """-> what the first steps subtract from a weight whose gradient is 1, in learning rates"""
    model = torch.nn.Linear(1, 1, bias=False)
    optimizer = kind(model.parameters(), lr=0.01, **settings)
    if save:
        get_state_dict(model, optimizer)
    before, moved = model.weight.item(), []
    for _ in range(3):
        model.weight.grad = torch.ones_like(model.weight)
        optimizer.step()
        moved.append((before - model.weight.item()) / 0.01)
        before = model.weight.item()
    return moved


EXPECTED = {  # of a gradient of 1: moment m and square v of t gradients, corrected as of t, or of t + 1
    "AdamW": ((torch.optim.AdamW, {"weight_decay": 0.0}), [1, 1, 1], [0.744, 0.858, 0.910]),
    "SGD, momentum 0.9": ((torch.optim.SGD, {"momentum": 0.9}), [1, 1.9, 2.71], [1, 1.9, 2.71]),
    "SGD, dampening 0.5": ((torch.optim.SGD, {"momentum": 0.9, "dampening": 0.5}), [1, 1.4, 1.76], [0.5, 0.95, 1.355]),
}
for name, ((kind, settings), alone, saved) in EXPECTED.items():
    seen = updates(False, kind, **settings), updates(True, kind, **settings)
    print(f"{name}: first updates over the learning rate {', '.join(f'{value:.3f}' for value in seen[0])};", end=" ")
    print(f"after get_state_dict {', '.join(f'{value:.3f}' for value in seen[1])}")
    for values, expected in zip(seen, (alone, saved), strict=True):
        assert all(abs(a - b) < 2e-3 for a, b in zip(values, expected, strict=True)), "the behaviour has changed"
PY
env/bin/python see.py

"""Whether crops of all sizes in one sequence are faster than a call for each size: when `train.pack_crops` pays."""

import time
from collections.abc import Iterator, Sequence
from functools import partial

import torch
from gpu.place import Row, Setup, attempt
from small import BACKBONES

from selfsup import encoder
from selfsup.encoder import Encoder, TokenEncoder
from selfsup.parts.patch import patchify
from selfsup.parts.tokens import Tokens
from selfsup.sections import Backbone

CROPS = (2, 224), (8, 96)  # of a sample: how many, of how many pixels a side
TRUNKS = {"vit_small_patch16_224": 64, "vit_large_patch16_224": 32}  # samples
STEPS = 10


def rows(setup: Setup) -> Iterator[Row]:
    """Yield the milliseconds of forward and backward of both, in turn, in bf16."""
    for name, samples in {"tiny": 2}.items() if setup.tiny else TRUNKS.items():
        yield attempt({"backbone": name}, partial(_compared, name, samples, setup.device))


def _compared(name: str, samples: int, device: str) -> Row:
    backbone = BACKBONES["vit"] if name == "tiny" else Backbone(name=name)
    trunks = [encoder.build(backbone).to(device) for _ in range(2)]
    packed = trunks[1]
    assert isinstance(packed, TokenEncoder)
    packed.pack()
    sides = ((2, 16), (8, 8)) if name == "tiny" else CROPS
    views = [
        patchify(torch.randn(number * samples, 3, side, side, device=device), packed.patch) for number, side in sides
    ]
    spent: list[list[float]] = [[], []]
    for _ in range(2 if name == "tiny" else STEPS):
        for trunk, own in zip(trunks, spent, strict=True):
            own.append(_step(trunk, views, device))
    best = [1000 * min(own) for own in spent]
    return {"ok": True, "apart_ms": best[0], "packed_ms": best[1], "ratio": best[1] / best[0]}


def _step(trunk: Encoder, views: Sequence[Tokens], device: str) -> float:
    began = time.perf_counter()
    with torch.autocast(device, dtype=torch.bfloat16):
        loss = torch.stack([vector.float().square().mean() for vector in trunk.pooled_each(views)]).sum()
    loss.backward()
    trunk.zero_grad()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began

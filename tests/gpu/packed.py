"""Whether crops of all sizes in one sequence are faster than a call for each size: what to know before a method packs.

Layers that see one token at a time take all crops at once; attention, which is block-diagonal, takes the crops of a
size at a time, so that nothing is computed for pairs of crops. DINOv2's authors pack (arXiv 2304.07193, section 5).
"""

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from gpu.place import Row, Setup, attempt
from small import BACKBONES
from torch import Tensor

from selfsup import encoder
from selfsup.encoder import TokenEncoder
from selfsup.parts.patch import patchify
from selfsup.parts.tokens import Tokens
from selfsup.sections import Backbone

CROPS = (2, 224), (8, 96)  # of a sample: how many, of how many pixels a side
TRUNKS = {"vit_small_patch16_224": 64, "vit_large_patch16_224": 32}  # samples
STEPS = 10
Forward = Callable[[TokenEncoder, Sequence[Tokens]], list[Tensor]]
Sizes = list[tuple[int, int]]  # crops, and tokens of each


def rows(setup: Setup) -> Iterator[Row]:
    """Yield the milliseconds of forward and backward of both, in turn, in bf16."""
    for name, samples in {"tiny": 2}.items() if setup.tiny else TRUNKS.items():
        yield attempt({"backbone": name}, partial(_compared, name, samples, setup.device))


def _compared(name: str, samples: int, device: str) -> Row:
    backbone = BACKBONES["vit"] if name == "tiny" else Backbone(name=name)
    trunk = encoder.build(backbone).to(device)
    assert isinstance(trunk, TokenEncoder)
    sides = ((2, 16), (8, 8)) if name == "tiny" else CROPS
    views = [
        patchify(torch.randn(number * samples, 3, side, side, device=device), trunk.patch) for number, side in sides
    ]
    seconds: dict[Forward, list[float]] = {apart: [], together: []}
    for _ in range(2 if name == "tiny" else STEPS):
        for forward, spent in seconds.items():
            spent.append(_step(forward, trunk, views, device))
    best = [1000 * min(spent) for spent in seconds.values()]
    return {"ok": True, "apart_ms": best[0], "packed_ms": best[1], "ratio": best[1] / best[0]}


def _step(forward: Forward, trunk: TokenEncoder, views: Sequence[Tokens], device: str) -> float:
    began = time.perf_counter()
    with torch.autocast(device, dtype=torch.bfloat16):
        loss = torch.stack([hidden[:, 0].float().square().mean() for hidden in forward(trunk, views)]).sum()
    loss.backward()
    trunk.zero_grad()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


def apart(trunk: TokenEncoder, views: Sequence[Tokens]) -> list[Tensor]:
    """V views, each (B_v, N_v, P) -> V of (B_v, T_v, D), after the final norm; a call for each."""
    return [trunk(view) for view in views]


def together(trunk: TokenEncoder, views: Sequence[Tokens]) -> list[Tensor]:
    """V views, each (B_v, N_v, P) -> V of (B_v, T_v, D), after the final norm; of a plain ViT without drop-path."""
    parts = [trunk.embedded(view) for view in views]
    sizes = [(len(part), part.shape[1]) for part in parts]
    x = torch.cat([part.flatten(0, 1) for part in parts])
    for block in trunk.trunk.blocks:
        x = x + block.ls1(_attended(block.attn, block.norm1(x), sizes))
        x = x + block.ls2(block.mlp(block.norm2(x)))
    return [part.unflatten(0, size) for part, size in zip(_cut(trunk.trunk.norm(x), sizes), sizes, strict=True)]


def _attended(attention: Any, x: Tensor, sizes: Sizes) -> Tensor:
    """(all tokens, D) -> (all tokens, D): each crop attends to itself."""
    mixed = attention.qkv(x).unflatten(1, (3, attention.num_heads, -1))
    parts = []
    for part, size in zip(_cut(mixed, sizes), sizes, strict=True):
        q, k, v = part.unflatten(0, size).permute(2, 0, 3, 1, 4)  # (B_v, H, T_v, d) each
        parts.append(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(0, 1).flatten(1))
    out: Tensor = attention.proj(torch.cat(parts))
    return out


def _cut(x: Tensor, sizes: Sizes) -> tuple[Tensor, ...]:
    return x.split([number * tokens for number, tokens in sizes])

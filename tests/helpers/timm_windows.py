"""Blocks of windows in timm, of the authors that Audio-MAE took them from."""

from functools import partial
from typing import Any

from timm.models.swin_transformer_v2_cr import SwinTransformerV2CrBlock
from torch import nn

from selfsup.parts.windows import WindowBlock

NAMES = {"attn.qkv": "qkv", "attn.proj": "out", "attn.meta_mlp": "bias", "attn.logit_scale": "temperature"}


def theirs_of(ours: WindowBlock, window: int) -> SwinTransformerV2CrBlock:
    """Theirs with our weights. Its constructor would move windows along both axes; the temperature is a logarithm."""
    grid, width = ours.grid, ours.out.in_features
    norm = partial(nn.LayerNorm, eps=1e-6)
    kind: Any = SwinTransformerV2CrBlock
    theirs = kind(width, ours.heads, grid, (window, window), init_values=None, norm_layer=norm)
    theirs.shift_size = (ours.shift, 0)
    theirs.attn_mask = theirs.get_attn_mask()
    weights = {}
    for name in theirs.state_dict():
        own = name
        for their_part, our_part in NAMES.items():
            own = own.replace(their_part, our_part)
        weight = ours.state_dict()[own]
        weights[name] = -weight.log() if own == "temperature" else weight
    theirs.load_state_dict(weights, strict=True)
    block: SwinTransformerV2CrBlock = theirs.eval()  # without dropout in its biases
    return block

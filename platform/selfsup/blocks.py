"""The blocks of timm's plain ViTs on any of an image's tokens: what attention knows of places is looked up by place.

B: batch, N: places of the grid, K: tokens but the prefix, T: prefix and K, H: heads, d: channels of a head, D: of all.
A place is the number of a token in its grid, row by row.
"""

import copy
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from timm.layers.pos_embed_rel import resize_rel_pos_bias_table_simple
from timm.models.beit import Beit, Block, gen_relative_position_index
from timm.models.eva import Eva
from torch import Tensor

from selfsup.parts.tokens import Grid


def through(trunk: Any, hidden: Tensor, grid: Grid, places: Tensor, attended: Tensor | None = None) -> Tensor:
    """(B, T, D), (K,) or (B, K) int64 -> (B, T, D): through all blocks, before the norm. Arguments as of `states`."""
    for state in states(trunk, hidden, grid, places, attended):
        hidden = state
    return hidden


def states(trunk: Any, hidden: Tensor, grid: Grid, places: Tensor, attended: Tensor | None = None) -> Iterator[Tensor]:
    """(B, T, D), (K,) or (B, K) int64 -> (B, T, D) after each block of a ViT, a BEiT or an EVA.

    places: of each token after the prefix, one list for all samples or one for each. attended: (B, 1, 1 or T, T)
    bool, the tokens that attention reads, for all or for each; None: all.
    """
    if isinstance(trunk, Beit):
        pairs = Pairs(_numbers(grid, places), grid, attended)
        shared = pairs.bias(trunk.rel_pos_bias.relative_position_bias_table) if trunk.rel_pos_bias is not None else None
        return _each(trunk.blocks, hidden, lambda block, x, _: block(x, shared, pairs))
    if isinstance(trunk, Eva):
        rope = rotations(trunk, grid, places) if trunk.rope is not None else lambda _: None
        return _each(trunk.blocks, hidden, lambda block, x, number: block(x, rope=rope(number), attn_mask=attended))
    options = {} if attended is None else {"attn_mask": attended}
    return _each(trunk.blocks, hidden, lambda block, x, _: block(x, **options))


def _each(blocks: Any, x: Tensor, block: Callable[[Any, Tensor, int], Tensor]) -> Iterator[Tensor]:
    for number, layer in enumerate(blocks):
        x = block(layer, x, number)
        yield x


def _masked(bias: Tensor | None, attended: Tensor | None, x: Tensor) -> Tensor | None:
    """([B,] H, T, T) or None, (B, 1, 1 or T, T) bool or None -> what attention adds for pairs of tokens"""
    if attended is None:
        return bias
    return torch.zeros_like(attended, dtype=x.dtype).masked_fill(~attended, -math.inf) + (0.0 if bias is None else bias)


def rotations(trunk: Eva, grid: Grid, places: Tensor) -> Callable[[int], Tensor]:
    """Return, for the number of a block, the sines and cosines that turn its queries and keys: (..., K, 2d)."""
    table = rotary_table(trunk.rope, grid)
    if table.ndim == 2:  # (N, 2d), the same in every block and head
        chosen = F.embedding(places, table)
        same = chosen if places.ndim == 1 else chosen[:, None]
        return lambda _: same
    by_sample = places.ndim == 2  # (blocks, H, N, 2d), RoPE-Mixed (arXiv 2403.13298)
    return lambda number: table[number][:, places].transpose(0, 1) if by_sample else table[number][:, places]


def rotary_table(rope: Any, grid: Grid) -> Tensor:
    """-> (N, 2d) or (blocks, H, N, 2d) of a grid; what is not learned is computed once for each grid and device."""
    if any(True for _ in rope.parameters()):
        learned: Tensor = rope.get_embed(grid)
        return learned
    known = rope.__dict__.setdefault("tables", {})
    place = grid, next(rope.buffers()).device
    if place not in known:
        known[place] = _fixed_table(rope, grid)
    table: Tensor = known[place]
    return table


def _fixed_table(rope: Any, grid: Grid) -> Tensor:
    if getattr(rope, "feat_shape", None) is None:
        free: Tensor = rope.get_embed(grid)
        return free
    other = copy.deepcopy(rope)  # one that is made for a grid gives no other's
    other.update_feat_shape(grid)
    table: Tensor = other.get_embed()
    return table


class Pairs(NamedTuple):
    """The pairs of tokens that a BEiT's attention sees. number: ([B,] T, T) int64, of each pair's distance.

    grid: that distances are of. attended: as of `states`.
    """

    number: Tensor
    grid: Grid
    attended: Tensor | None

    def bias(self, table: Tensor) -> Tensor:
        """(distances of the table's own grid, H) -> ([B,] H, T, T)"""
        height, width = self.grid
        distances = (2 * height - 1) * (2 * width - 1) + 3
        resized = resize_rel_pos_bias_table_simple(table, (height, width), (distances, table.shape[1]))
        bias: Tensor = F.embedding(self.number, resized).movedim(-1, -3).contiguous()
        return bias


def _numbers(grid: Grid, places: Tensor) -> Tensor:
    """(K,) or (B, K) int64 -> ([B,] T, T) int64"""
    height, width = grid
    index = gen_relative_position_index((height, width), device=places.device)
    number = F.pad(places + 1, (1, 0))  # the class token comes first
    pairs: Tensor = index[number[..., :, None], number[..., None, :]]
    return pairs


def place(trunk: Any) -> None:
    """Let the blocks of a BEiT, in place, take pairs of any tokens; other trunks stay as they are."""
    for block in trunk.blocks if isinstance(trunk, Beit) else ():
        block.__class__ = PlacedBlock


class PlacedBlock(Block):
    """A block of BEiT, whose own attention takes the tokens of a whole grid only: what it does without `pairs`."""

    def forward(self, x: Tensor, shared_rel_pos_bias: Tensor | None = None, pairs: Pairs | None = None) -> Tensor:
        """(B, T, D), ([B,] H, T, T) or None -> (B, T, D)"""
        if pairs is None:
            whole: Tensor = super().forward(x, shared_rel_pos_bias)
            return whole
        table, shared = self.attn.relative_position_bias_table, shared_rel_pos_bias
        own = pairs.bias(table) if table is not None else None
        bias = own if shared is None else shared if own is None else own + shared
        attended, scale = _attended(self.attn, self.norm1(x), _masked(bias, pairs.attended, x)), self.gamma_1
        x = x + self.drop_path1(attended if scale is None else scale * attended)
        changed, scale = self.mlp(self.norm2(x)), self.gamma_2
        out: Tensor = x + self.drop_path2(changed if scale is None else scale * changed)
        return out


def _attended(attention: Any, x: Tensor, bias: Tensor | None) -> Tensor:
    """(B, T, D) -> (B, T, D)"""
    offset = None
    if attention.q_bias is not None:
        offset = torch.cat([attention.q_bias, torch.zeros_like(attention.q_bias), attention.v_bias])
    mixed = F.linear(x, attention.qkv.weight, offset)
    q, k, v = mixed.reshape(*x.shape[:2], 3, attention.num_heads, -1).permute(2, 0, 3, 1, 4)
    drop = attention.attn_drop.p if attention.training else 0.0
    mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, dropout_p=drop)
    out: Tensor = attention.proj_drop(attention.proj(mixed.transpose(1, 2).flatten(2)))
    return out

"""Encoders over timm: plain ViTs that see tokens and can leave some out, and models of any kind that see images.

A Hiera sees images, too, unless an objective leaves out its mask units.

    encoder = build(backbone)      # at its initial weights: a function of the backbone and torch's seed
    encoder = build(backbone, DINO.initialize)    # those that an objective begins with

B: batch, N: tokens, K: kept tokens, P: values of a patch, D: channels.
"""

from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfsup import blocks, packed_crops
from selfsup.encoder_interface import Encoder
from selfsup.hiera import HieraEncoder
from selfsup.parts.groups import GroupLayers
from selfsup.parts.patch import Patch
from selfsup.parts.pieces import in_pieces
from selfsup.parts.positions import resized
from selfsup.parts.tokens import Grid, Tokens
from selfsup.pooled_encoder import PooledEncoder
from selfsup.sections import Backbone, InputShape, image_shape
from selfsup.trunk import create, fix_positions, timm_kwargs

Join = Callable[[Tensor, Tensor | float], Tensor]  # (B, K, D), (K, D) or (B, K, D) or no position, 0 -> (B, K, D)

__all__ = ["Encoder", "HieraEncoder", "PooledEncoder", "SparseEncoder", "TokenEncoder", "build", "timm_kwargs"]


class TokenEncoder(Encoder):
    """A plain ViT, BEiT or EVA. grid: patches along each axis of the samples that it is built for. patch_values: P.

    num_prefix: class and register tokens, which stand before the patches. class_tokens: number of the first of them,
    whose mean stands for a sample.
    """

    trunk: Any
    patch: Patch

    def __init__(self, trunk: nn.Module, *, pool: Literal["cls", "mean", "mean_norm"], class_tokens: int = 1) -> None:
        super().__init__()
        blocks.place(trunk)
        self.trunk, self.pool, self.class_tokens = trunk, pool, class_tokens
        self.dim: int = self.trunk.embed_dim
        self.grid: Grid = self.trunk.patch_embed.grid_size
        sides = self.trunk.patch_embed.patch_size
        self.patch = sides[0] if len(set(sides)) == 1 else sides
        own = self.trunk.patch_embed.proj.weight[0].numel()
        self.patch_values: int = own if self.groups is None else self.groups.values
        self.num_prefix: int = self.trunk.num_prefix_tokens

    def forward(
        self,
        tokens: Tokens,
        keep: Tensor | None = None,
        cover: tuple[Tensor, Tensor] | None = None,
        *,
        join: Join | None = None,
        attended: Tensor | None = None,
    ) -> Tensor:
        """(B, N, P) tokens, (B, K) or None -> (B, num_prefix + K, D), after the final norm.

        tokens: in any order, placed by their coordinates. In a grid of another size than `grid`, positions are resized.
        No token attends to padding. keep: numbers of the tokens to process, all if None; the others cost nothing, and
        kept ones have their positions in the whole. cover: (B, N) bool and (1, D), the embedding of tokens there, at
        their positions. join: what becomes of embedded patches (B, K, D) and their positions, in place of their sum.
        attended: (B, 1, T, T) bool, what each token reads, the prefix included; all valid ones if None.
        """
        value, places, valid = tokens.value, tokens.place, tokens.valid
        if keep is not None:
            value = value.take_along_dim(keep[..., None], dim=1)
            places = places[keep] if places.ndim == 1 else places.take_along_dim(keep, dim=1)
            valid = valid.take_along_dim(keep, dim=1) if valid is not None else None
        hidden = self._embedded(tokens, value, places, cover, join)
        return self.encode(hidden, tokens.grid, places, self._attended(valid) if attended is None else attended)

    @property
    def groups(self) -> GroupLayers | None:
        """Return the layers of groups of points, which are the trunk's; None of an encoder of patches."""
        groups: GroupLayers | None = getattr(self.trunk.patch_embed, "groups", None)
        return groups

    def pooled(self, view: Tokens | Tensor, join: Join | None = None) -> Tensor:
        """(B, N, P) tokens -> (B, D): the mean of the class tokens, or of valid patches; mean_norm: normalized last.

        join: as of `forward`.
        """
        assert isinstance(view, Tokens), "a ViT sees tokens, not images"
        if self.pool != "mean_norm":
            return self._pooled(self(view, join=join), view, self.pool)
        hidden = self._embedded(view, view.value, view.place, join=join)
        hidden = self.encode(hidden, view.grid, view.place, self._attended(view.valid), nn.Identity())
        return self._feature(hidden, view, self.pool)

    def pack(self) -> None:
        """Let views of several sizes go through the trunk in one sequence, from now on."""
        packed_crops.pack(self.trunk)
        self.packs = True

    def each(self, views: Sequence[Tokens], covers: Sequence[tuple[Tensor, Tensor] | None]) -> list[Tensor]:
        """V views, (B, N, P) each -> V of (B, num_prefix + N, D), after the final norm. covers: as of `forward`."""
        if not self.packs or len(views) == 1:
            return [self(view, cover=cover) for view, cover in zip(views, covers, strict=True)]
        return [self.trunk.norm(state) for state in self._packed(views, covers)]

    def pooled_each(self, views: Sequence[Tokens | Tensor]) -> list[Tensor]:
        if not self.packs or len(views) == 1:
            return super().pooled_each(views)
        seen = [view for view in views if isinstance(view, Tokens)]
        states = self._packed(seen, [None] * len(seen))
        return [self._feature(state, view, self.pool) for state, view in zip(states, seen, strict=True)]

    def _packed(self, views: Sequence[Tokens], covers: Sequence[tuple[Tensor, Tensor] | None]) -> list[Tensor]:
        """-> (B, num_prefix + N, D) of each view, before the final norm"""
        assert all(view.valid is None for view in views), "crops have no padding"
        embedded = [self.embedded(view, cover) for view, cover in zip(views, covers, strict=True)]
        return packed_crops.through(self.trunk, embedded)

    def features(self, view: Tokens | Tensor, kind: str, blocks: int) -> Tensor:
        assert isinstance(view, Tokens), "a ViT sees tokens, not images"
        states = deque(self.states(view), maxlen=blocks)
        pool = {"pooled": self.pool, "cls_mean": "cls"}.get(kind, kind)
        means = [self._feature(states[-1], view, "mean")] if kind == "cls_mean" else []
        return torch.cat([*(self._feature(state, view, pool) for state in states), *means], dim=1)

    @property
    def num_layers(self) -> int:
        return len(self.trunk.blocks)

    def layers(self, view: Tokens | Tensor, numbers: Collection[int]) -> dict[int, Tensor]:
        """Return number -> (B, D), pooled after each of these blocks and the final norm, which all of them pass."""
        assert isinstance(view, Tokens), "a ViT sees tokens, not images"
        states = enumerate(self.states(view), 1)
        return {number: self._feature(state, view, self.pool) for number, state in states if number in numbers}

    def states(self, tokens: Tokens, attended: Tensor | None = None) -> Iterator[Tensor]:
        """Yield (B, num_prefix + N, D) after each block, before the final norm. attended: as of `forward`."""
        read = self._attended(tokens.valid) if attended is None else attended
        return self._states(self.embedded(tokens), tokens.grid, tokens.place, read)

    def _feature(self, state: Tensor, view: Tokens, pool: str) -> Tensor:
        """(B, T, D) before the final norm -> (B, D)"""
        if pool != "mean_norm":
            return self._pooled(self.trunk.norm(state), view, pool)
        normed: Tensor = self.trunk.norm(self._pooled(state, view, pool))
        return normed

    def _pooled(self, hidden: Tensor, view: Tokens, pool: str) -> Tensor:
        """(B, T, D) -> (B, D)"""
        if pool == "cls":
            return hidden[:, 0] if self.class_tokens == 1 else hidden[:, : self.class_tokens].mean(dim=1)
        patches = hidden[:, self.num_prefix :]
        if view.valid is None:
            return patches.mean(dim=1)
        return (patches * view.valid[..., None]).sum(dim=1) / view.valid.sum(dim=1, keepdim=True)

    def spatial(self, view: Tokens | Tensor) -> Tensor:
        """(B, N, P) tokens of a whole grid, in its order -> (B, D, *grid): the patches' features."""
        assert isinstance(view, Tokens), "a ViT sees tokens, not images"
        return self._gridded(self(view), view)

    def pooled_and_spatial(self, view: Tokens | Tensor) -> tuple[Tensor, Tensor]:
        assert isinstance(view, Tokens), "a ViT sees tokens, not images"
        if self.pool == "mean_norm":  # two norms
            return super().pooled_and_spatial(view)
        hidden = self(view)
        return self._pooled(hidden, view, self.pool), self._gridded(hidden, view)

    def _gridded(self, hidden: Tensor, view: Tokens) -> Tensor:
        """(B, T, D) -> (B, D, *grid)"""
        places = hidden[:, self.num_prefix :].mT
        return places.reshape(*places.shape[:2], *view.grid)

    def spatial_layers(self, view: Tokens | Tensor, numbers: Collection[int]) -> dict[int, Tensor]:
        """Return number -> (B, D, *grid): what `spatial` is of the last block, after each of these."""
        assert isinstance(view, Tokens), "a ViT sees tokens, not images"
        asked = sorted({*numbers})

        def encode(hidden: Tensor) -> tuple[Tensor, ...]:
            states = enumerate(self._states(hidden, view.grid, view.place, None), 1)
            return tuple(self.trunk.norm(state)[:, self.num_prefix :] for number, state in states if number in asked)

        made = in_pieces(encode, self.embedded(view), self.pieces, self.trunk)
        return {number: own.mT.reshape(len(own), -1, *view.grid) for number, own in zip(asked, made, strict=True)}

    def embedded(self, tokens: Tokens, cover: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """(B, N, P) tokens -> (B, num_prefix + N, D): at their positions, before the first block."""
        return self._embedded(tokens, tokens.value, tokens.place, cover)

    def encode(
        self, hidden: Tensor, grid: Grid, places: Tensor, attended: Tensor | None, norm: nn.Module | None = None
    ) -> Tensor:
        """(B, T, D), (K,) or (B, K), (B, 1, 1 or T, T) bool or None -> (B, T, D): through all blocks and the norm.

        hidden: as `embedded`; a plain VisionTransformer takes further tokens after these, such as words. norm: the
        trunk's own if None.
        """
        norm = norm or self.trunk.norm
        by_sample = {"places": places} if places.ndim == 2 else {}
        by_sample |= {"attended": attended} if attended is not None else {}

        def encode(hidden: Tensor, *parts: Tensor) -> tuple[Tensor]:
            given: dict[str, Any] = {"places": places, "attended": None} | dict(zip(by_sample, parts, strict=True))
            for state in self._states(hidden, grid, **given):
                hidden = state
            return (norm(hidden),)

        [out] = in_pieces(encode, hidden, self.pieces, self.trunk, *by_sample.values())
        return out

    @property
    def position(self) -> nn.Parameter:
        """-> (1, num_prefix + N, D), or (1, N, D): the position embedding."""
        position: nn.Parameter | None = self.trunk.pos_embed
        assert position is not None, "its positions are in its attention"
        return position

    def _embedded(
        self,
        tokens: Tokens,
        value: Tensor,
        places: Tensor,
        cover: tuple[Tensor, Tensor] | None = None,
        join: Join | None = None,
    ) -> Tensor:
        """(B, K, P), (K,) or (B, K) -> (B, T, D): before the first block"""
        first, position = self._positions(tokens.grid)
        prefix, embedded = (self._prefix() + first).expand(value.shape[0], -1, -1), self._embed(value)
        if cover is not None:
            embedded = torch.where(cover[0][..., None], cover[1].to(embedded.dtype), embedded)
        if position is not None or join is not None or self.groups is not None:
            at: Tensor | float = 0.0 if position is None else F.embedding(places, position)
            at = at if self.groups is None else self.groups.position(value)
            embedded = embedded + at if join is None else join(embedded, at)
        return torch.cat([prefix, embedded], dim=1)

    def _states(self, hidden: Tensor, grid: Grid, places: Tensor, attended: Tensor | None) -> Iterator[Tensor]:
        """(B, T, D) -> (B, T, D) after each block"""
        before = getattr(self.trunk, "norm_pre", nn.Identity())  # BEiT has none
        return blocks.states(self.trunk, before(hidden), grid, places, attended)

    def _attended(self, valid: Tensor | None) -> Tensor | None:
        """(B, K) bool or None -> (B, 1, 1, T) bool or None: the tokens that attention reads; prefix tokens are."""
        return None if valid is None else F.pad(valid, (self.num_prefix, 0), value=True)[:, None, None]

    def _embed(self, value: Tensor) -> Tensor:
        """(B, K, P) -> (B, K, D): the patch convolution, as a matrix over (row, column, channel), as of `patchify`.

        Of groups of points, the largest values of their points.
        """
        proj = self.trunk.patch_embed.proj
        if self.groups is not None:
            largest: Tensor = self.trunk.patch_embed.norm(proj(self.groups(value)).amax(2))
            return largest
        one_channel = proj.weight.shape[1] == 1  # moved, its gradient would have strides that DDP warns of
        matrix = (proj.weight if one_channel else proj.weight.movedim(1, -1)).flatten(1)
        embedded: Tensor = self.trunk.patch_embed.norm(F.linear(value, matrix, proj.bias))
        return embedded

    def _prefix(self) -> Tensor:
        """(1, num_prefix, D): class token, then registers, in timm's order"""
        tokens = (self.trunk.cls_token, getattr(self.trunk, "reg_token", None))
        parts = [part for part in tokens if part is not None]
        return torch.cat(parts, dim=1) if parts else self.trunk.patch_embed.proj.weight.new_zeros(1, 0, self.dim)

    def _positions(self, grid: Grid) -> tuple[Tensor | float, Tensor | None]:
        """(num_prefix, D), or zero for names that give prefix tokens none; (N, D), or None where places have none."""
        if self.trunk.pos_embed is None:
            return 0.0, None
        position, number = self.position[0], 0 if getattr(self.trunk, "no_embed_class", False) else self.num_prefix
        own = self._resized(position[number:], grid) if self.groups is None else None
        return position[:number] if number else 0.0, own

    def _resized(self, position: Tensor, grid: Grid) -> Tensor:
        """(N, D) -> (places of the grid, D)"""
        return position if grid == self.grid else resized(position, self.grid, grid, self.position_offset)


SparseEncoder = TokenEncoder | HieraEncoder  # what leaves out tokens, which then cost nothing


def build(
    backbone: Backbone,
    initialize: Callable[[Any], None] | None = None,
    shape: InputShape | None = None,
    *,
    mask_units: bool = False,
) -> Encoder:
    """Return the encoder at its initial weights, or with `backbone.weights`. Raises SpecError where there can be none.

    initialize: an objective's change of a timm model's initial weights, in place. shape: of samples; None: RGB
    images of the backbone's own size. mask_units: whether a Hiera is to see tokens, and leave out mask units.
    """
    mask_units = mask_units and backbone.is_hiera
    trunk = create(backbone, initialize, shape or image_shape(backbone), mask_units=mask_units)
    if not backbone.is_vit:
        kind = HieraEncoder if mask_units else PooledEncoder
        return kind(trunk, trunk.head_hidden_size, backbone.name)
    encoder = TokenEncoder(trunk, pool=backbone.pool, class_tokens=backbone.class_tokens)
    if backbone.positions == "sincos" and trunk.pos_embed is not None and encoder.groups is None:
        fix_positions(trunk, loaded=bool(backbone.weights))
    return encoder

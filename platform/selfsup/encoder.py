"""Encoders over timm: ViTs that see tokens and can leave some out, and CNNs that see images.

    encoder = build(backbone)      # at its initial weights: a function of the backbone and torch's seed
    save_encoder(encoder, backbone, path); load_encoder(path)

B: batch, N: tokens, K: kept tokens, P: values of a patch, D: channels.
"""

import abc
import difflib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import safetensors
import safetensors.torch
import timm
import torch
import torch.nn.functional as F
from timm.layers import PatchEmbed
from timm.models import ResNet, VisionTransformer, load_state_dict
from timm.models.vision_transformer import checkpoint_filter_fn
from torch import Tensor, nn

from selfsup.errors import CheckpointError, SpecError
from selfsup.knob import resolved
from selfsup.parts.positions import sincos
from selfsup.parts.tokens import Tokens
from selfsup.sections import Backbone

State = Mapping[str, Tensor]


class Encoder(nn.Module, abc.ABC):
    """What an objective trains and evaluation freezes. trunk: a timm model, whose state dict is timm's own. dim: D."""

    trunk: nn.Module
    dim: int

    @abc.abstractmethod
    def pooled(self, view: Tokens | Tensor) -> Tensor:
        """A batch as the stream delivers it -> (B, D): one vector an image."""


class TokenEncoder(Encoder):
    """A plain ViT. grid: rows and columns of patches. patch: pixels a side. num_prefix: class and register tokens."""

    trunk: VisionTransformer

    def __init__(self, trunk: VisionTransformer, *, pool: Literal["cls", "mean"]) -> None:
        super().__init__()
        self.trunk, self.pool = trunk, pool
        self.dim: int = trunk.embed_dim
        self.grid: tuple[int, int] = trunk.patch_embed.grid_size
        self.patch: int = trunk.patch_embed.patch_size[0]
        self.num_prefix: int = trunk.num_prefix_tokens

    def forward(self, tokens: Tokens, keep: Tensor | None = None) -> Tensor:
        """Tokens, (B, K) or None -> (B, num_prefix + K, D), after the final norm.

        tokens: the whole grid, row by row, as `patchify` makes it. keep: numbers of the tokens to process, all if None;
        the others cost nothing, and each kept one has the position that it has in the whole.
        """
        value, (first, position) = tokens.value, self._positions()
        assert value.shape[1] == len(position), f"{value.shape[1]} tokens for a {self.grid} grid"
        if keep is not None:
            value, position = value.take_along_dim(keep[..., None], dim=1), F.embedding(keep, position)
        prefix = (self._prefix() + first).expand(len(value), -1, -1)
        hidden = torch.cat([prefix, self._embed(value) + position], dim=1)
        out: Tensor = self.trunk.norm(self.trunk.blocks(self.trunk.norm_pre(hidden)))
        return out

    def pooled(self, view: Tokens | Tensor) -> Tensor:
        """Tokens -> (B, D)"""
        assert isinstance(view, Tokens), "a ViT sees tokens, not images"
        hidden = self(view)
        pooled: Tensor = hidden[:, 0] if self.pool == "cls" else hidden[:, self.num_prefix :].mean(dim=1)
        return pooled

    def _embed(self, value: Tensor) -> Tensor:
        """(B, K, P) -> (B, K, D): the patch convolution, as the matrix that it is for a (row, column, channel) patch."""
        proj = self.trunk.patch_embed.proj
        embedded: Tensor = self.trunk.patch_embed.norm(F.linear(value, proj.weight.permute(0, 2, 3, 1).flatten(1), proj.bias))
        return embedded

    def _prefix(self) -> Tensor:
        """(1, num_prefix, D): class token, then registers, in timm's order"""
        parts = [part for part in (self.trunk.cls_token, self.trunk.reg_token) if part is not None]
        return torch.cat([*parts, self.trunk.pos_embed[:, :0]], dim=1)

    def _positions(self) -> tuple[Tensor, Tensor]:
        """(num_prefix, D) or zero, (N, D)"""
        position = self.trunk.pos_embed[0]
        if self.trunk.no_embed_class:
            return position.new_zeros(()), position
        return position[: self.num_prefix], position[self.num_prefix :]


class PooledEncoder(Encoder):
    """A CNN, up to its global average pooling."""

    def __init__(self, trunk: nn.Module, dim: int) -> None:
        super().__init__()
        self.trunk, self.dim = trunk, dim

    def pooled(self, view: Tokens | Tensor) -> Tensor:
        """(B, C, H, W) -> (B, D)"""
        assert isinstance(view, Tensor), "a CNN sees images, not tokens"
        pooled: Tensor = self.trunk(view)
        return pooled


def build(backbone: Backbone) -> Encoder:
    """The encoder at its initial weights, or with `backbone.weights`.

    Raises SpecError for a name that timm does not know or that is neither a plain ViT nor a CNN of the asked stem, for
    sizes that do not fit together, and for weights that cannot be read or do not fit.
    """
    trunk = _create(backbone)
    encoder = _token_encoder(trunk, backbone) if backbone.is_vit else _pooled_encoder(trunk, backbone)
    if backbone.weights:
        _load_weights(encoder.trunk, backbone)
    if isinstance(encoder, TokenEncoder) and backbone.positions == "sincos":
        _fix_positions(encoder, loaded=bool(backbone.weights))
    return encoder


def timm_kwargs(backbone: Backbone) -> dict[str, Any]:
    """What makes `timm.create_model(**kwargs)` take the state dict of the trunk, and then return what `pooled` returns.

    Raises SpecError for the small stem, which timm does not have.
    """
    if not backbone.is_vit and backbone.stem == "small":
        raise SpecError(f"timm's {backbone.name} has no stem for small images: export it with --to torch")
    return _create_kwargs(backbone)


def save_encoder(encoder: Encoder, backbone: Backbone, path: Path) -> None:
    """The trunk's state dict as safetensors, the backbone in its metadata: all that `load_encoder` needs."""
    part = path.with_name(path.name + ".part")
    metadata = {"backbone": json.dumps(resolved(backbone)), "format": "pt"}
    safetensors.torch.save_file(encoder.trunk.state_dict(), part, metadata=metadata)
    part.replace(path)


def load_encoder(path: Path) -> Encoder:
    """What `save_encoder` wrote. Raises CheckpointError for any other file."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            told = (file.metadata() or {}).get("backbone")
        state = safetensors.torch.load_file(path)
    except (OSError, safetensors.SafetensorError) as error:
        raise CheckpointError(f"{path}: cannot read an encoder from it: {error}") from None
    if told is None:
        raise CheckpointError(f"{path}: does not say which backbone it holds; expected a file that selfsup wrote")
    encoder = build(Backbone.model_validate_json(told).model_copy(update={"weights": None}))
    encoder.trunk.load_state_dict(state)
    return encoder


def _create(backbone: Backbone) -> nn.Module:
    name = backbone.name
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=3)
        hint = f"did you mean {', '.join(near)}?" if near else "`timm.list_models()` names them all"
        raise SpecError(f"backbone.name: timm has no model {name!r}; {hint}")
    try:
        trunk: nn.Module = timm.create_model(**_create_kwargs(backbone))
    except (AssertionError, RuntimeError, TypeError, ValueError) as error:
        raise SpecError(f"backbone: timm cannot build {name} as asked: {error}") from error
    return trunk


def _create_kwargs(backbone: Backbone) -> dict[str, Any]:
    kwargs = {"model_name": backbone.name, "num_classes": 0, "drop_path_rate": backbone.drop_path}
    if not backbone.is_vit:
        return kwargs
    sizes = {
        "img_size": backbone.image_size,
        "patch_size": backbone.patch_size,
        "embed_dim": backbone.width,
        "depth": backbone.depth,
        "num_heads": backbone.heads,
    }
    kwargs |= {name: size for name, size in sizes.items() if size is not None}
    pool = {"cls": "token", "mean": "avg"}[backbone.pool]
    return kwargs | {"global_pool": pool, "fc_norm": False}  # so the final norm stands before pooling, for tokens too


def _token_encoder(trunk: nn.Module, backbone: Backbone) -> TokenEncoder:
    plain = type(trunk) is VisionTransformer and type(trunk.patch_embed) is PatchEmbed and trunk.pos_embed is not None
    if not plain:
        kind = type(trunk).__name__
        raise SpecError(f"backbone.name: {backbone.name} is a {kind}, no plain ViT such as vit_small_patch16_224")
    encoder = TokenEncoder(trunk, pool=backbone.pool)
    size, patch = backbone.image_size, encoder.patch
    if size % patch:
        raise SpecError(f"backbone.image_size: {size} pixels do not divide into patches of {patch} (backbone.patch_size)")
    if backbone.positions == "sincos" and encoder.dim % 4:
        raise SpecError(f"backbone.width: sincos positions need a multiple of 4 channels, not {encoder.dim}")
    _initialise(trunk)
    return encoder


@torch.no_grad()
def _initialise(trunk: VisionTransformer) -> None:
    """MAE's initial weights (arXiv 2111.06377, appendix A.1, and the authors' code), whatever timm's are for the name."""
    xavier_linears(trunk)
    nn.init.xavier_uniform_(trunk.patch_embed.proj.weight.flatten(1))  # a view: the convolution is a linear layer
    for token in (trunk.cls_token, trunk.reg_token, trunk.pos_embed):
        if token is not None:
            nn.init.normal_(token, std=0.02)


def _fix_positions(encoder: TokenEncoder, *, loaded: bool) -> None:
    """Sine-cosine positions, not trained; those of class and register tokens are zero, as MAE's."""
    position = encoder.trunk.pos_embed.requires_grad_(False)
    fixed = sincos(encoder.grid, encoder.dim)
    fixed = torch.cat([fixed.new_zeros(position.shape[1] - len(fixed), encoder.dim), fixed])[None]
    if loaded and not torch.allclose(position, fixed, atol=1e-3):
        raise SpecError("backbone.weights brings positions that were learned: set backbone.positions: learned")
    with torch.no_grad():
        position.copy_(fixed)


def _pooled_encoder(trunk: nn.Module, backbone: Backbone) -> PooledEncoder:
    if backbone.stem == "small":
        if not isinstance(trunk, ResNet) or not isinstance(trunk.conv1, nn.Conv2d):
            raise SpecError(f"backbone.stem: small is made for ResNets such as resnet18, not for {backbone.name}")
        _shrink_stem(trunk)
    return PooledEncoder(trunk, trunk.head_hidden_size)


def _shrink_stem(trunk: ResNet) -> None:
    """3x3 with stride 1, and no max-pooling: SimCLR's stem for CIFAR (arXiv 2002.05709, appendix B.9)."""
    conv = trunk.conv1
    trunk.conv1 = nn.Conv2d(conv.in_channels, conv.out_channels, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(trunk.conv1.weight, mode="fan_out", nonlinearity="relu")  # as timm's
    trunk.maxpool = nn.Identity()


def _load_weights(trunk: nn.Module, backbone: Backbone) -> None:
    """All of them or none; the classifier is left out, positions and patches are resampled to the sizes asked for."""
    state, head = _weights(backbone), trunk.pretrained_cfg["classifier"]
    if backbone.is_vit:
        state = checkpoint_filter_fn(dict(state), trunk)
    try:
        trunk.load_state_dict({name: value for name, value in state.items() if name.split(".")[0] != head})
    except RuntimeError as error:
        raise SpecError(f"backbone.weights: {backbone.weights} does not fit {backbone.name}: {error}") from None


def _weights(backbone: Backbone) -> State:
    assert backbone.weights
    try:
        if backbone.weights == "timm":
            return dict(timm.create_model(backbone.name, pretrained=True).state_dict())
        return dict(load_state_dict(backbone.weights, use_ema=False))
    except Exception as error:  # whatever readers and downloads raise, it is the same mistake
        reason = str(error) or type(error).__name__
        raise SpecError(f"backbone.weights: cannot load {backbone.weights} for {backbone.name}: {reason}") from error

"""Trunks: timm models of the class, sizes and weights that a backbone asks for."""

from collections.abc import Callable
from math import prod
from typing import Any

import timm
import torch
from timm.models import ResNet, VisionTransformer, is_model_in_modules
from torch import nn

from selfsup import families, outside, outside_trunk, weights
from selfsup.errors import SpecError
from selfsup.families import POOLINGS
from selfsup.hiera import UNIT
from selfsup.parts.groups import GroupLayers
from selfsup.parts.heads import xavier_linears
from selfsup.parts.positions import sincos
from selfsup.sections import Backbone, InputShape, image_shape

IMAGE = 2  # axes


def create(
    backbone: Backbone, initialize: Callable[[Any], None] | None, shape: InputShape, *, mask_units: bool = False
) -> Any:
    """Return the timm model, Any since timm has no typed interface, at initial weights or with `backbone.weights`.

    initialize: an objective's change of the initial weights. mask_units: whether a Hiera's are to be left out.
    Raises SpecError for a name that timm does not have, for a stem that it cannot have, for sizes that do not fit
    together, and for weights that cannot be read or do not fit.
    """
    if outside.is_outside(backbone.name):
        return outside_trunk.create(backbone, shape)
    trunk = _named(backbone, shape, {"q_pool": POOLINGS} if mask_units else {})
    if backbone.is_vit:
        if len(shape.sizes) != IMAGE:
            _give_axes(trunk, backbone, shape)
        _check_vit(trunk, backbone, shape)
        _initialize(trunk)
        if getattr(trunk, "rope", None) is not None:
            trunk.rope.aug_active = False  # a forward pass draws nothing
    elif backbone.stem == "small":
        _shrink_stem(trunk, backbone)
    elif backbone.is_hiera:
        _check_hiera(trunk, shape)
    if initialize and backbone.init == "objective":
        initialize(trunk)
    if backbone.weights:
        weights.fill(trunk, backbone, shape)
    return trunk


def timm_kwargs(backbone: Backbone, shape: InputShape | None = None) -> dict[str, Any]:
    """Return kwargs of `timm.create_model` for a model that takes a trunk's state dict, and returns what `pooled` does.

    Raises SpecError for the small stem, means of class tokens and models from outside, which timm does not have.
    """
    if outside.is_outside(backbone.name):
        raise SpecError(f"{backbone.name} is no model of timm: export it with --to torch")
    if shape and len(shape.sizes) != IMAGE:
        raise SpecError(f"timm's {backbone.name} sees images alone: export it with --to torch")
    if not backbone.is_vit and backbone.stem == "small":
        raise SpecError(f"timm's {backbone.name} has no stem for small images: export it with --to torch")
    if backbone.class_tokens > 1 and backbone.pool == "cls":
        raise SpecError(f"timm's {backbone.name} has no mean of class tokens: export it with --to torch")
    if backbone.is_vit and backbone.pool == "mean_norm":
        raise SpecError(f"timm calls the norm behind pooling of {backbone.name} otherwise: export it with --to torch")
    return _create_kwargs(backbone, shape or image_shape(backbone))


def _named(backbone: Backbone, shape: InputShape, options: dict[str, Any]) -> Any:
    """Return the model that a backbone names. options: of timm's constructor, beside those of the backbone."""
    name = backbone.name
    if problem := families.unknown(name):
        raise SpecError(problem, "backbone.name")
    if not backbone.is_vit and backbone.width and not is_model_in_modules(name, ("resnet", "hiera")):
        raise SpecError(f"it is for ViTs and for ResNets such as resnet18, not for {name}", "backbone.width")
    if backbone.is_vit and backbone.pool == "cls" and not families.has_class_token(name):
        raise SpecError(f"{name} has no class token; use backbone.pool: mean", "backbone.pool", "backbone.name")
    kwargs = _create_kwargs(backbone, shape)
    try:
        return timm.create_model(**kwargs, **options)
    except Exception as error:  # whatever timm's constructors raise
        message = f"timm cannot build {name} as asked: {families.reason(error)}"
        raise SpecError(message, "backbone") from error


def _create_kwargs(backbone: Backbone, shape: InputShape) -> dict[str, Any]:
    kwargs: dict[str, Any] = {"model_name": backbone.name, "num_classes": 0}
    if len(shape.sizes) != IMAGE and not backbone.is_vit:
        message = f"{backbone.name} sees images, and samples have {len(shape.sizes)} axes; use vit_small_patch16_224"
        raise SpecError(f"{message} or the like", "backbone.name", "input")
    if backbone.drop_path:  # not every CNN knows the word
        kwargs["drop_path_rate"] = backbone.drop_path
    if shape.channels != 3:
        kwargs["in_chans"] = shape.channels
    if backbone.is_hiera:
        return kwargs | _hiera_kwargs(backbone, shape)
    if not backbone.is_vit:
        return kwargs | _pooled_kwargs(backbone, shape)
    is_image = len(shape.sizes) == IMAGE
    sizes = {
        "img_size": _side(shape) if is_image else backbone.patch,
        "patch_size": backbone.patch_size,
        "embed_dim": backbone.width,
        "depth": backbone.depth,
        "num_heads": backbone.heads,
    }
    kwargs |= {name: size for name, size in sizes.items() if size is not None}
    if backbone.qk_norm:
        kwargs["qk_norm"] = True
    if backbone.class_tokens > 1:
        if not families.takes_class_tokens(backbone.name):
            message = (
                f"{backbone.name} has no class token, or registers beside it; use vit_small_patch16_224 or the like"
            )
            raise SpecError(message, "backbone.class_tokens")
        kwargs["reg_tokens"] = backbone.class_tokens - 1
    kwargs["global_pool"] = "token" if backbone.pool == "cls" else "avg"
    late_norm = "fc_norm" if is_model_in_modules(backbone.name, ("vision_transformer", "deit")) else "use_fc_norm"
    return kwargs | {late_norm: False}  # so the final norm stands before pooling, for tokens too


def _pooled_kwargs(backbone: Backbone, shape: InputShape) -> dict[str, Any]:
    if backbone.width:
        return {"channels": [backbone.width * 2**stage for stage in range(4)]}
    usual = families.input_size(backbone.name) == _side(shape)
    return {"img_size": _side(shape)} if families.is_sized(backbone.name) and not usual else {}


def _hiera_kwargs(backbone: Backbone, shape: InputShape) -> dict[str, Any]:
    """Return the sizes of a Hiera: its third resolution has more or fewer blocks, as in the sizes of its authors.

    Raises SpecError for sizes that do not fit together.
    """
    sizes: dict[str, Any] = {"img_size": _side(shape), "embed_dim": backbone.width, "num_heads": backbone.heads}
    if patch := backbone.patch_size:
        stride, rest = divmod(patch, 2**POOLINGS)
        if rest:
            message = f"tokens of a Hiera begin with a quarter of its pixels a side, and {patch} has none"
            raise SpecError(message, "backbone.patch_size")
        kernel = {"patch_kernel": 2 * stride - 1, "patch_stride": stride, "patch_padding": stride - 1}  # 7, 4 and 3
        sizes |= {name: (size, size) for name, size in kernel.items()}
    if backbone.depth:
        first, second, third, last = families.hiera_stages(backbone.name)
        third += backbone.depth - (first + second + third + last)
        if third < 1:
            message = f"{backbone.name} has {first + second + last} blocks beside those of its third resolution"
            raise SpecError(f"{message}; expected more, not {backbone.depth}", "backbone.depth")
        sizes["stages"] = (first, second, third, last)
    return {name: size for name, size in sizes.items() if size is not None}


def _check_hiera(trunk: Any, shape: InputShape) -> None:
    unit = UNIT * families.hiera_patch(trunk)
    if any(size % unit for size in shape.sizes):
        message = f"samples of {' x '.join(map(str, shape.sizes))} points do not divide into mask units of {unit}"
        raise SpecError(message, "backbone.patch_size", "backbone.image_size")
    width, heads = trunk.blocks[0].dim, trunk.blocks[0].attn.heads
    if width % heads:
        message = f"{width} channels do not divide into {heads} heads"
        raise SpecError(message, "backbone.heads", "backbone.width")


def _give_axes(trunk: Any, backbone: Backbone, shape: InputShape) -> None:
    """Let a ViT see samples of another number of axes than images have: by its patches and positions alone.

    Raises SpecError where it cannot.
    """
    if type(trunk) is not VisionTransformer or trunk.pos_embed is None:
        reason = f"the attention of {backbone.name} places tokens by row and column"
        message = f"{reason}, and samples have {len(shape.sizes)} axes; use vit_small_patch16_224 or the like"
        raise SpecError(message, "backbone.name", "input")
    if backbone.weights:
        raise SpecError(f"weights of images do not fit samples of {len(shape.sizes)} axes", "backbone.weights", "input")
    embed: Any = trunk.patch_embed
    sides, bias = shape.sides(embed.patch_size[0]), embed.proj.bias is not None
    if shape.in_groups:
        embed.groups = GroupLayers(shape.channels, trunk.embed_dim, sides[0])
        embed.proj = nn.Linear(embed.groups.out, trunk.embed_dim, bias=bias)
    else:
        convolution: Any = {1: nn.Conv1d, 3: nn.Conv3d}[len(sides)]
        embed.proj = convolution(shape.channels, trunk.embed_dim, sides, sides, bias=bias)
    grid = tuple(size // side for size, side in zip(shape.sizes, sides, strict=True))
    embed.img_size, embed.patch_size, embed.grid_size, embed.num_patches = shape.sizes, sides, grid, prod(grid)
    prefix, placed = 0 if trunk.no_embed_class else trunk.num_prefix_tokens, 0 if shape.in_groups else prod(grid)
    trunk.pos_embed = nn.Parameter(torch.zeros(1, prefix + placed, trunk.embed_dim))


def _side(shape: InputShape) -> int | tuple[int, ...]:
    """Return the points along each axis as timm takes them: one number for a square."""
    return shape.sizes[0] if len(set(shape.sizes)) == 1 else shape.sizes


def _check_vit(trunk: Any, backbone: Backbone, shape: InputShape) -> None:
    patch, width = trunk.patch_embed.patch_size[-1], trunk.embed_dim
    if problem := shape.undivided(patch):
        raise SpecError(problem, "backbone.patch_size", "backbone.image_size")
    if backbone.positions == "sincos" and trunk.pos_embed is not None and width % 4:
        raise SpecError(f"sincos positions need a multiple of 4 channels, not {width}", "backbone.width")


@torch.no_grad()
def _initialize(trunk: Any) -> None:
    """Draw MAE's initial weights (arXiv 2111.06377, appendix A.1) in place of timm's."""
    xavier_linears(trunk)
    nn.init.xavier_uniform_(trunk.patch_embed.proj.weight.flatten(1))  # a view: the convolution is a linear layer
    for token in (trunk.cls_token, getattr(trunk, "reg_token", None), trunk.pos_embed):
        if token is not None:
            nn.init.normal_(token, std=0.02)


def _shrink_stem(trunk: Any, backbone: Backbone) -> None:
    """Replace the stem by 3x3 with stride 1 and no pooling, SimCLR's for CIFAR (arXiv 2002.05709, appendix B.9)."""
    if not isinstance(trunk, ResNet) or not isinstance(trunk.conv1, nn.Conv2d):
        raise SpecError(f"small is made for ResNets such as resnet18, not for {backbone.name}", "backbone.stem")
    conv = nn.Conv2d(trunk.conv1.in_channels, trunk.conv1.out_channels, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")  # as timm's
    trunk.register_module("conv1", conv)
    trunk.register_module("maxpool", nn.Identity())


def fix_positions(trunk: Any, *, loaded: bool) -> None:
    """Fix a ViT's positions at sines and cosines, and at zero for class and register tokens, as MAE does.

    loaded: whether they are given ones, which must be these. Raises SpecError where they are not.
    """
    position = trunk.pos_embed.requires_grad_(False)
    fixed = sincos(trunk.patch_embed.grid_size, trunk.embed_dim)
    fixed = torch.cat([fixed.new_zeros(position.shape[1] - len(fixed), trunk.embed_dim), fixed])[None]
    if loaded and not torch.allclose(position, fixed, atol=1e-3):
        raise SpecError("they have learned positions: set backbone.positions: learned", "backbone.weights")
    with torch.no_grad():
        position.copy_(fixed)

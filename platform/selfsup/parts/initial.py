"""Initial weights and drop-path of papers' encoders, where MAE's and timm's differ; other models stay as they are."""

import math
from typing import Any

import torch
from timm.layers.drop import DropPath
from timm.models import Hiera, ResNet
from torch import Tensor, nn

from selfsup.families import is_plain
from selfsup.parts.heads import xavier_linears

STD = 0.02  # of BEiT's weights


def truncated_normal(trunk: Any, *, tokens: float = 0.02) -> None:
    """Draw a ViT's linear layers, positions and tokens anew, with standard deviations of 0.02 and of `tokens`.

    As the code of DINO (arXiv 2104.14294) does, whose patch embedding begins as any convolution of PyTorch. tokens: of
    the class and the registers.
    """
    if not is_plain(trunk):
        return
    for layer in trunk.modules():
        if isinstance(layer, nn.Linear):
            nn.init.trunc_normal_(layer.weight, std=0.02)
    trunk.patch_embed.proj.reset_parameters()
    if trunk.pos_embed is not None:
        nn.init.trunc_normal_(trunk.pos_embed, std=0.02)
    _draw_tokens(trunk, tokens)


def beit(trunk: Any, *, cut: float = 1.0) -> None:
    """Draw a ViT's layers, positions and tokens anew, cut at so many deviations of 0.02; deep layers begin small.

    As the code of BEiT (arXiv 2106.08254), also of SimMIM and data2vec: what the i-th block adds is scaled by
    1 / sqrt(2 i). I-JEPA's code does the same, but for the cut, which is at 100.
    """
    if not is_plain(trunk):
        return
    bound = cut * STD
    tokens = trunk.cls_token, getattr(trunk, "reg_token", None), trunk.pos_embed
    linears = [layer.weight for layer in trunk.modules() if isinstance(layer, nn.Linear)]
    for weight in (*linears, trunk.patch_embed.proj.weight, *(token for token in tokens if token is not None)):
        nn.init.trunc_normal_(weight, std=STD, a=-bound, b=bound)
    shrink(trunk.blocks)
    _forget_bias(trunk)


@torch.no_grad()
def cae(trunk: Any) -> None:
    """Draw a ViT's patch embedding and class token cut at a deviation of 0.02; scales of what blocks add begin at 0.1.

    As CAE's code (arXiv 2202.03026) for ViT-B; deit3_base_patch16_224 has such scales.
    """
    if not is_plain(trunk):
        return
    cut_normal(trunk.patch_embed.proj.weight, *([] if trunk.cls_token is None else [trunk.cls_token]))
    _forget_bias(trunk)
    scaled_branches(trunk, 0.1)


@torch.no_grad()
def scaled_branches(trunk: Any, scale: float) -> None:
    """Let the scales of what a ViT's blocks add begin at this, where it has such scales."""
    for name, weight in trunk.named_parameters():
        if name.endswith((".gamma", ".gamma_1", ".gamma_2")):
            weight.fill_(scale)


def cut_normal(*weights: Tensor) -> None:
    """Draw weights from a normal distribution, cut at its deviation of 0.02, as BEiT's code (arXiv 2106.08254)."""
    for weight in weights:
        nn.init.trunc_normal_(weight, std=STD, a=-STD, b=STD)


def spared(name: str) -> bool:
    """Return whether BEiT's code (arXiv 2106.08254) exempts a weight from decay by its name: class token, positions."""
    return name.endswith((".cls_token", ".pos_embed"))


@torch.no_grad()
def shrink(blocks: Any) -> None:
    """Divide the last layers of both branches of the i-th block by sqrt(2 i), as BEiT's code (arXiv 2106.08254)."""
    for number, block in enumerate(blocks, start=1):
        for layer in (block.attn.proj, block.mlp.fc2):
            layer.weight.div_(math.sqrt(2 * number))


def truncated_patches(trunk: Any) -> None:
    """Draw a ViT's patch embedding with a standard deviation of 0.02, without a bias; as MaskFeat's code."""
    if is_plain(trunk):
        nn.init.trunc_normal_(trunk.patch_embed.proj.weight, std=0.02)
        _forget_bias(trunk)


def kaiming_patches(trunk: Any) -> None:
    """Draw a ViT's patch embedding from a normal distribution by He et al.'s rule, without a bias; as MSN's code."""
    if is_plain(trunk):
        nn.init.kaiming_normal_(trunk.patch_embed.proj.weight, nonlinearity="relu")
        _forget_bias(trunk)


def mocov3(trunk: Any) -> None:
    """Draw a ViT's queries, keys and values as three matrices by Glorot's rule, and its class token at nearly zero.

    As the code of MoCo v3 (arXiv 2104.02057); all else there is as MAE's.
    """
    if not is_plain(trunk):
        return
    for name, layer in trunk.named_modules():
        if name.endswith(".qkv"):
            for matrix in layer.weight.data.chunk(3):
                nn.init.xavier_uniform_(matrix)
    _forget_bias(trunk)
    _draw_tokens(trunk, 1e-6)


def hiera(trunk: Any) -> None:
    """Draw a Hiera's linear layers and patch embedding by Glorot's rule, as the MAE of its authors' code does."""
    if isinstance(trunk, Hiera):
        xavier_linears(trunk)
        weight: Tensor = trunk.patch_embed.get_parameter("proj.weight")
        nn.init.xavier_uniform_(weight.data.flatten(1))  # a view


def unit_residuals(trunk: Any) -> None:
    """Set the scale of the last norm of each branch of a ResNet to 1, as torchvision's; timm's begin at 0."""
    if isinstance(trunk, ResNet):
        for layer in trunk.modules():
            if isinstance(layer, nn.BatchNorm2d):
                nn.init.ones_(layer.weight)


def even_drop_path(trunk: Any) -> None:
    """Leave out the branches of each block of a ViT as often as the last block's; timm's rates rise to that.

    As DINOv2's code (arXiv 2304.07193).
    """
    if not is_plain(trunk):
        return
    rate: float = getattr(trunk.blocks[-1].drop_path1, "drop_prob", 0.0)
    for block in trunk.blocks if rate else ():
        block.drop_path1, block.drop_path2 = DropPath(rate), DropPath(rate)


def _forget_bias(trunk: Any) -> None:
    if trunk.patch_embed.proj.bias is not None:
        nn.init.zeros_(trunk.patch_embed.proj.bias)


def _draw_tokens(trunk: Any, std: float) -> None:
    for token in (trunk.cls_token, getattr(trunk, "reg_token", None)):
        if token is not None:
            nn.init.normal_(token, std=std)

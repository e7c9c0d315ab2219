"""Plain ViTs as directories that transformers reads by AutoModel, in the layout of its ViTModel on the hub.

D: channels, N: places.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from timm.layers.mlp import Mlp
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

from selfsup.encoder import Encoder, PooledEncoder, TokenEncoder
from selfsup.errors import SpecError
from selfsup.outside_trunk import HuggingFaceTrunk
from selfsup.parts.patch import side_of
from selfsup.pretrained import PretrainedEncoder

ATTENTION, PROJECTION = "attention.attention", "attention.output.dense"


def write(pretrained: PretrainedEncoder, name: str, folder: Path) -> None:
    """Write model and image processor to a new folder. name: of the backbone.

    Raises SpecError for an encoder that transformers has no such model for.
    """
    encoder = pretrained.encoder
    if pretrained.view.modality != "image":
        raise SpecError(f"{name} sees no images: transformers' image models cannot be it; export it with --to torch")
    folder.mkdir()
    if isinstance(encoder, PooledEncoder) and isinstance(encoder.trunk, HuggingFaceTrunk):
        encoder.trunk.model.save_pretrained(folder)
    else:
        _write_vit(_plain(encoder, name), folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(_processor(pretrained), indent=1) + "\n")


def features(pretrained: PretrainedEncoder, folder: Path, images: Tensor) -> Tensor:
    """(B, C, H, W) in [0, 1], of the encoder's size -> (B, D) by transformers, from what `write` wrote"""
    from transformers import AutoModel
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    model = AutoModel.from_pretrained(folder, local_files_only=True).eval()
    encoder, normalized = pretrained.encoder, pretrained.normalized(images.movedim(1, -1))
    if isinstance(encoder, PooledEncoder):
        same: Tensor = HuggingFaceTrunk(model, encoder.trunk.pool).eval()(normalized)
        return same
    output = model(normalized)
    pooled: Tensor = output.pooler_output if encoder.pool == "cls" else output.last_hidden_state[:, 1:].mean(dim=1)
    return pooled


def pooling(encoder: Encoder) -> str:
    """Return how the output of the model becomes features, as Python."""
    if isinstance(encoder, TokenEncoder):
        return ".pooler_output" if encoder.pool == "cls" else ".last_hidden_state[:, 1:].mean(1)"
    return ".last_hidden_state"


def _plain(encoder: Encoder, name: str) -> TokenEncoder:
    """Return an encoder whose trunk ViTModel can be. Raises SpecError for any other, saying why."""
    why = "is no plain ViT" if not isinstance(encoder, TokenEncoder) else _unlike(encoder.trunk)
    if why:
        raise SpecError(f"{name} {why}: transformers' ViTModel cannot be it; export it with --to torch, onnx or pt2")
    assert isinstance(encoder, TokenEncoder)
    return encoder


def _unlike(trunk: Any) -> str:
    """Return what a ViT has that ViTModel has not; "" where it is such a model."""
    if type(trunk) is not VisionTransformer or any(type(block) is not Block for block in trunk.blocks):
        return f"is a {type(trunk).__name__} with blocks of its own"
    block: Any = trunk.blocks[0]
    if trunk.cls_token is None:
        return "has no class token"
    if getattr(trunk, "reg_token", None) is not None:
        return "has register tokens"
    extra = {"norm_pre": "a norm before its blocks", "patch_embed.norm": "a norm of patches"}
    extras = [text for path, text in extra.items() if not isinstance(trunk.get_submodule(path), nn.Identity)]
    if not isinstance(block.attn.q_norm, nn.Identity):
        extras.append("normalized queries")
    if type(block.mlp) is not Mlp:
        extras.append("an MLP of another kind")
    return f"has {extras[0]}" if extras else ""


def _write_vit(encoder: TokenEncoder, folder: Path) -> None:
    state = {name: value.detach().contiguous().clone() for name, value in _state(encoder)}
    safetensors.torch.save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(_config(encoder), indent=1) + "\n")


def _config(encoder: TokenEncoder) -> Mapping[str, Any]:
    trunk, block = encoder.trunk, encoder.trunk.blocks[0]
    return {
        "architectures": ["ViTModel"],
        "model_type": "vit",
        "hidden_size": encoder.dim,
        "num_hidden_layers": len(trunk.blocks),
        "num_attention_heads": block.attn.num_heads,
        "intermediate_size": block.mlp.fc1.out_features,
        "hidden_act": "gelu",
        "layer_norm_eps": trunk.norm.eps,
        "image_size": [length * side_of(encoder.patch) for length in encoder.grid],
        "patch_size": side_of(encoder.patch),
        "num_channels": trunk.patch_embed.proj.in_channels,
        "qkv_bias": block.attn.qkv.bias is not None,
        "pooler_act": "linear",  # with the identity as weight: the class token, as the norm leaves it
    }


def _state(encoder: TokenEncoder) -> Iterator[tuple[str, Tensor]]:
    """Yield the weights under the names that they have on the hub."""
    trunk, dim = encoder.trunk, encoder.dim
    position = trunk.pos_embed
    if position.shape[1] == trunk.patch_embed.num_patches:  # the class token has none
        position = torch.cat([position.new_zeros(1, 1, dim), position], dim=1)
    yield "embeddings.cls_token", trunk.cls_token
    yield "embeddings.position_embeddings", position
    yield from _layer("embeddings.patch_embeddings.projection", trunk.patch_embed.proj)
    for number, block in enumerate(trunk.blocks):
        yield from ((f"encoder.layer.{number}.{name}", value) for name, value in _block(block))
    yield from _layer("layernorm", trunk.norm)
    yield "pooler.dense.weight", torch.eye(dim)
    yield "pooler.dense.bias", torch.zeros(dim)


def _block(block: Any) -> Iterator[tuple[str, Tensor]]:
    yield from _layer("layernorm_before", block.norm1)
    yield from _layer("layernorm_after", block.norm2)
    for kind, value in block.attn.qkv.named_parameters():
        parts = zip(("query", "key", "value"), value.chunk(3), strict=True)
        yield from ((f"{ATTENTION}.{name}.{kind}", part) for name, part in parts)
    yield from _layer(PROJECTION, block.attn.proj, block.ls1)
    yield from _layer("intermediate.dense", block.mlp.fc1)
    yield from _layer("output.dense", block.mlp.fc2, block.ls2)


def _layer(name: str, layer: nn.Module, scale: nn.Module | None = None) -> Iterator[tuple[str, Tensor]]:
    """Yield weight and bias of a layer. scale: timm's LayerScale after it, which becomes part of both."""
    gamma = getattr(scale, "gamma", None)
    for kind, value in layer.named_parameters():
        yield f"{name}.{kind}", value if gamma is None else value * (gamma[:, None] if value.ndim == 2 else gamma)


def _processor(pretrained: PretrainedEncoder) -> Mapping[str, Any]:
    """Return how images are prepared, in transformers' words."""
    height, width = pretrained.view.lengths
    share: float = pretrained.view.share  # type: ignore[attr-defined]  # of images
    return {
        "image_processor_type": "BitImageProcessor",
        "do_convert_rgb": pretrained.stats.channels == 3,
        "do_resize": True,
        "size": {"shortest_edge": round(height / share)},
        "resample": 3,  # bicubic
        "do_center_crop": True,
        "crop_size": {"height": height, "width": width},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(pretrained.stats.mean),
        "image_std": list(pretrained.stats.std),
    }

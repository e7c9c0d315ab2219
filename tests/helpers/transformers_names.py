"""Our small ViT in transformers, and the names there of weights of our ViTs and of MAE's decoder."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from transformers import ViTConfig

SMALL_VIT = ViTConfig(  # of `small.setting`
    image_size=16,
    patch_size=4,
    encoder_stride=4,
    hidden_size=48,
    num_hidden_layers=2,
    num_attention_heads=3,
    intermediate_size=4 * 48,
    layer_norm_eps=1e-6,
)


def renamed(ours: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return weights, or their gradients, by their names in transformers; positions are left as they are."""
    theirs: dict[str, Tensor] = {}
    for name, value in ours.items():
        if "qkv" in name:
            for part, piece in zip("qkv", value.chunk(3), strict=True):
                theirs[rename(name.replace("attn.qkv", f"attention.{part}_proj"))] = piece
        else:
            theirs[rename(name)] = value
    return theirs


def of_encoder(ours: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return those of the weights, or gradients, of an objective that are its encoder's, as ViTModel names them."""
    own = {name: value for name, value in ours.items() if name.startswith("encoders.")}
    return {name.removeprefix("vit."): value for name, value in renamed(own).items()}


def compare_gradients(
    method: nn.Module,
    theirs: nn.Module,
    loss: Tensor,
    expected: Tensor,
    names: Callable[[Mapping[str, Tensor]], dict[str, Tensor]] = renamed,
) -> None:
    """Compare the gradients of a loss and of theirs, at all weights that are trained. names: of ours, in theirs."""
    torch.autograd.backward([loss, expected])
    torch.testing.assert_close(names(gradients(method)), gradients(theirs), rtol=1e-3, atol=1e-5)


def gradients(module: nn.Module) -> dict[str, Tensor]:
    """Return the gradient of each weight that is trained; raises AssertionError where one has none."""
    trained = {name: weight for name, weight in module.named_parameters() if weight.requires_grad}
    slopes = {name: weight.grad for name, weight in trained.items() if weight.grad is not None}
    assert slopes.keys() == trained.keys()
    return slopes


def rename(name: str) -> str:
    """Return the name in transformers of a weight that is named alike in ours."""
    for ours, theirs in {
        "encoders.image.trunk.blocks": "vit.layers",
        "encoders.image.trunk.norm": "vit.layernorm",
        "encoders.image.trunk.patch_embed.proj": "vit.embeddings.patch_embeddings.projection",
        "encoders.image.trunk.cls_token": "vit.embeddings.cls_token",
        "encoders.image.trunk.pos_embed": "vit.embeddings.position_embeddings",
        "decoder.blocks": "decoder.decoder_layers",
        "decoder.embed": "decoder.decoder_embed",
        "decoder.norm.": "decoder.decoder_norm.",
        "decoder.head": "decoder.decoder_pred",
        "attn.proj": "attention.o_proj",
        "norm1": "layernorm_before",
        "norm2": "layernorm_after",
    }.items():
        name = name.replace(ours, theirs)
    return name

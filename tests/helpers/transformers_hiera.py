"""Our MAE on a small Hiera as transformers' HieraForPreTraining: the same weights, under other names."""

from collections.abc import Callable
from typing import Any

from torch import Tensor
from transformers import HieraConfig, HieraForPreTraining

from selfsup.masks import IndexMask

NAMES = {
    "encoders.image.trunk.patch_embed.proj": "hiera.embeddings.patch_embeddings.projection",
    "encoders.image.trunk.pos_embed": "hiera.embeddings.position_embeddings",
    "encoders.image.trunk.head.norm": "encoder_norm",
    "fusion.heads": "multiscale_fusion.multi_scale_fusion_heads",
    "decoder.embed": "decoder.decoder_embeddings",
    "decoder.blocks": "decoder.decoder_block.layers",
    "decoder.norm.": "decoder.decoder_norm.",
    "decoder.head": "decoder.decoder_pred",
    "norm1": "layernorm_before",
    "norm2": "layernorm_after",
}


def reference(method: Any, mask_ratio: float = 0.6) -> HieraForPreTraining:
    """Return theirs with our weights, and our decoder's positions, which it then keeps."""
    trunk, decoder = method.backbone.trunk, method.decoder
    heads = trunk.blocks[0].attn.heads
    config = HieraConfig(
        image_size=[side * stride for side, stride in zip(trunk.tokens_spatial_shape, trunk.patch_stride, strict=True)],
        patch_size=trunk.patch_embed.proj.kernel_size,
        patch_stride=trunk.patch_stride,
        patch_padding=trunk.patch_embed.proj.padding,
        embed_dim=trunk.blocks[0].dim,
        depths=depths(method),
        num_heads=[heads, 2 * heads, 4 * heads, 8 * heads],
        num_query_pool=2,
        decoder_hidden_size=decoder.embed.out_features,
        decoder_depth=len(decoder.blocks),
        decoder_num_heads=decoder.blocks[0].attn.num_heads,
        mask_ratio=mask_ratio,
    )
    model: HieraForPreTraining = HieraForPreTraining(config).to(decoder.embed.weight.dtype)
    state = {theirs(method, name): shaped(name, weight) for name, weight in method.named_parameters()}
    model.load_state_dict(state | {"decoder.decoder_position_embeddings": decoder.places.positions[None]}, strict=True)
    model.decoder.decoder_position_embeddings.requires_grad_(False)
    return model


def depths(method: Any) -> list[int]:
    ends = method.backbone.trunk.stage_ends
    return [end - before for before, end in zip([-1, *ends], ends, strict=False)]


def theirs(method: Any, name: str) -> str:
    """Return the name in transformers of one of our weights; blocks are counted by resolution there."""
    if "trunk.blocks." in name:
        number, _, rest = name.partition("trunk.blocks.")[2].partition(".")
        stage = sum(int(number) > end for end in method.backbone.trunk.stage_ends)
        first = sum(depths(method)[:stage])
        name = f"hiera.encoder.stages.{stage}.layers.{int(number) - first}.{rest}"
    for before, after in NAMES.items():
        name = name.replace(before, after)
    return name


def shaped(name: str, weight: Tensor) -> Tensor:
    """Return a weight of ours as theirs: values of a patch are there by channel, row and column."""
    return _turned(weight, lambda patch: patch.movedim(2, 0)) if "decoder.head" in name else weight


def ours(name: str, weight: Tensor) -> Tensor:
    """Return a weight of theirs as ours."""

    def turn(patch: Tensor) -> Tensor:
        return patch.reshape(3, *patch.shape[:2], *patch.shape[3:]).movedim(0, 2)

    return _turned(weight, turn) if "decoder.head" in name else weight


def _turned(weight: Tensor, turn: Callable[[Tensor], Tensor]) -> Tensor:
    side = round((len(weight) / 3) ** 0.5)
    return turn(weight.view(side, side, 3, *weight.shape[1:])).reshape(weight.shape)


def noise(mask: IndexMask) -> Tensor:
    """-> (B, units): noise by which they keep the units that we keep."""
    rows = mask.order[:, ::4]
    side = round(mask.order.shape[1] ** 0.5)
    units = rows // side // 2 * (side // 2) + rows % side // 2
    place: Tensor = units.argsort(dim=1)
    return place.double()

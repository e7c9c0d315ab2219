"""Token encoders of every class against timm's own forward pass, and on kept tokens against attention on them alone."""

from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import Tensor

from selfsup.attention import LastAttention, class_attention, keys
from selfsup.encoder import TokenEncoder, build, timm_kwargs
from selfsup.parts.patch import patchify
from selfsup.saved import restore_encoder, save_encoder
from selfsup.sections import Backbone

SMALL = {"image_size": 32, "patch_size": 8, "width": 48, "depth": 2, "heads": 3}
NAMES = {  # the positions that attention knows: none, of every pair, turned by axis, learned, normalized, absolute too
    "vit_tiny_patch16_224": "cls",
    "beit_base_patch16_224": "cls",
    "beitv2_base_patch16_224": "mean",
    "eva_giant_patch14_224": "cls",
    "eva02_tiny_patch14_224": "cls",
    "vit_medium_patch16_rope_reg1_gap_256": "mean",
    "vit_small_patch16_rope_mixed_ape_224": "cls",
    "vit_small_patch16_dinov3": "cls",
    "vit_pe_core_tiny_patch16_384": "mean",
}
KEEP = torch.tensor([[3, 0, 9], [15, 1, 2], [7, 8, 6]])


def images(size: int = 32) -> Tensor:
    return torch.randn(3, 3, size, size, generator=torch.Generator().manual_seed(0))


def encoder_of(name: str, **changed: Any) -> tuple[TokenEncoder, Backbone]:
    backbone = Backbone(name=name, pool=NAMES[name], positions="learned", **SMALL | changed)
    assert backbone.is_vit
    encoder = build(backbone)
    torch.manual_seed(1)
    for weight in encoder.parameters():
        weight.data += 0.3 * torch.randn_like(weight)  # no bias, scale or position at zero or one
    assert isinstance(encoder, TokenEncoder)
    return encoder, backbone


def same(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_with_nothing_masked_it_is_timms(name: str) -> None:
    encoder, backbone = encoder_of(name)
    theirs = timm.create_model(**timm_kwargs(backbone))
    theirs.load_state_dict(encoder.trunk.state_dict(), strict=True)
    tokens = patchify(images(), 8)
    same(encoder(tokens), theirs.forward_features(images()))
    same(encoder.pooled(tokens), theirs(images()))


@pytest.mark.parametrize("name", NAMES)
def test_tokens_are_where_their_coordinates_say(name: str) -> None:
    encoder, _ = encoder_of(name)
    tokens, order = patchify(images(), 8), torch.stack([torch.randperm(16) for _ in range(3)])
    value, coord = (part.take_along_dim(order[..., None], 1) for part in (tokens.value, tokens.coord))
    mixed = tokens._replace(value=value, coord=coord)
    whole, prefix = encoder(tokens), encoder.num_prefix
    same(encoder(mixed)[:, prefix:], whole[:, prefix:].take_along_dim(order[..., None], dim=1))


@pytest.mark.parametrize("name", NAMES)
def test_on_kept_tokens_attention_is_that_of_the_whole_restricted_to_them(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """timm's own blocks see all tokens; in attention those left out are no keys: what they hold reaches no kept one."""
    encoder, _ = encoder_of(name)
    prefix, whole = encoder.num_prefix, F.scaled_dot_product_attention
    found = encoder(patchify(images(), 8), KEEP)
    kept = torch.zeros(3, 16, dtype=torch.bool).scatter(1, KEEP, True)
    hidden = torch.cat([torch.ones(3, prefix, dtype=torch.bool), kept], dim=1)[:, None, None]

    def restricted(q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None = None, **rest: Any) -> Tensor:
        bias = torch.zeros(()) if attn_mask is None else attn_mask
        return whole(q, k, v, attn_mask=torch.where(hidden, bias, -torch.inf), **rest)

    monkeypatch.setattr(F, "scaled_dot_product_attention", restricted)
    theirs = encoder.trunk.forward_features(images())
    same(found[:, :prefix], theirs[:, :prefix])
    same(found[:, prefix:], theirs[:, prefix:].take_along_dim(KEEP[..., None], dim=1))


@pytest.mark.parametrize("name", NAMES)
def test_padding_is_attended_to_by_none_and_pooled_by_none(name: str) -> None:
    encoder, _ = encoder_of(name)
    tokens, prefix = patchify(images(), 8), encoder.num_prefix
    kept = encoder(tokens, KEEP)
    padded = tokens._replace(valid=torch.zeros(3, 16, dtype=torch.bool).scatter(1, KEEP, True))
    for encoder.pieces in (1, 3):
        found = encoder(padded)
        same(found[:, :prefix], kept[:, :prefix])
        same(found[:, prefix:].take_along_dim(KEEP[..., None], dim=1), kept[:, prefix:])
        same(encoder.pooled(padded), kept[:, 0] if NAMES[name] == "cls" else kept[:, prefix:].mean(dim=1))
    same(encoder(padded, KEEP[:, :2]), encoder(tokens, KEEP[:, :2]))  # all that are kept are valid


@pytest.mark.parametrize("name", NAMES)
def test_pieces_smaller_crops_and_the_disk(name: str, tmp_path: Any) -> None:
    encoder, backbone = encoder_of(name)
    tokens = patchify(images(), 8)
    whole = encoder(tokens, KEEP)
    assert encoder.spatial(patchify(images(16), 8)).shape == (3, 48, 2, 2)
    encoder.pieces = 3
    same(encoder(tokens, KEEP), whole)
    save_encoder(encoder, backbone, tmp_path / "encoder.safetensors")
    same(restore_encoder(tmp_path / "encoder.safetensors")(tokens, KEEP), whole)
    again = build(backbone.model_copy(update={"weights": str(tmp_path / "encoder.safetensors")}))
    same(again(tokens, KEEP), whole)


def test_rotations_of_another_grid_are_those_of_a_model_of_that_size() -> None:
    name = "vit_small_patch16_dinov3"
    encoder, _ = encoder_of(name)
    other, _ = encoder_of(name, image_size=16)
    other.trunk.load_state_dict(encoder.trunk.state_dict())
    same(encoder(patchify(images(16), 8)), other(patchify(images(16), 8)))


@pytest.mark.parametrize("name", NAMES)
def test_shares_of_the_last_attention_times_its_values_are_what_it_yields(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder, _ = encoder_of(name)
    attend, calls = F.scaled_dot_product_attention, list[tuple[Tensor, Tensor]]()

    def remembered(query: Tensor, key: Tensor, value: Tensor, **options: Any) -> Tensor:
        calls.append((value, out := attend(query, key, value, **options)))
        return out

    last = LastAttention.of(encoder, patchify(images(), 8))
    monkeypatch.setattr(F, "scaled_dot_product_attention", remembered)
    encoder(patchify(images(), 8))
    value, out = calls[-1]
    same(last.of_first_token()[:, :, None] @ value, out[:, :, :1])


def test_keys_and_shares_are_those_of_the_weights() -> None:
    encoder, view = encoder_of("vit_tiny_patch16_224")[0], patchify(images(), 8)
    before, _ = encoder.states(view)
    block = encoder.trunk.blocks[-1]
    query, key, _ = block.attn.qkv(block.norm1(before)).chunk(3, dim=-1)
    same(keys(encoder, view), key[:, 1:])
    for head in range(3):
        part = slice(16 * head, 16 * head + 16)
        same(
            class_attention(encoder, view)[..., head],
            (query[:, :1, part] @ key[..., part].mT / 4).softmax(-1)[:, 0, 1:],
        )

"""BEiT against transformers' ViT with masked patches, and what it asks of masks and of its tokenizer."""

from copy import deepcopy

import torch
import torch.nn.functional as F
from small import shake
from torch import Tensor
from transformers import ViTModel
from transformers_names import SMALL_VIT, compare_gradients, gradients, of_encoder

from selfsup.masks import BlockMask
from selfsup.method import load
from selfsup.parts.patch import unpatchify


def theirs_of(ours: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights or gradients of the encoder and the mask token by their names."""
    return of_encoder(ours) | {"embeddings.mask_token": ours["mask_token"][None]}


def test_the_loss_is_transformers_in_value_and_gradient(setting) -> None:
    method, batch = setting("beit")
    shake(method)
    theirs, head = ViTModel(SMALL_VIT, add_pooling_layer=False, use_mask_token=True), deepcopy(method.head)
    theirs.load_state_dict(theirs_of(method.state_dict()), strict=True)
    theirs.embeddings.position_embeddings.requires_grad_(False)  # as ours are
    [view] = batch.views
    where, code = view.mask.where, method.teacher.method.codes(view.value)
    hidden = theirs(unpatchify(view.value.value, grid=(4, 4), patch=4), bool_masked_pos=where).last_hidden_state[:, 1:]
    rows = zip(head(hidden), code, where, strict=True)
    expected = torch.stack([F.cross_entropy(logits[at], own[at]) for logits, own, at in rows]).mean()
    loss = method(batch).loss
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=0)
    compare_gradients(method, theirs, loss, expected, theirs_of)
    torch.testing.assert_close(gradients(method.head), gradients(head), rtol=1e-3, atol=1e-5)


def test_masked_patches_stay_hidden_from_the_encoder_but_not_from_the_tokenizer(setting) -> None:
    method, batch = setting("beit")
    [view] = batch.views
    other = torch.where(view.mask.where[..., None], torch.randn_like(view.value.value), view.value.value)
    seen = [method.backbone(view.value, cover=(view.mask.where, method.mask_token))]
    codes = [method.teacher.codes(view.value)]
    view.value.value.copy_(other)
    seen.append(method.backbone(view.value, cover=(view.mask.where, method.mask_token)))
    codes.append(method.teacher.codes(view.value))
    assert seen[0].equal(seen[1])
    assert not codes[0].equal(codes[1])


def test_an_objective_masks_rectangles_of_16_patches_or_more() -> None:
    kind = load("beit")
    [crop] = kind.views(kind.Hyper()).specs
    assert crop.mask == BlockMask(0.4, 0.4, smallest=16)


def test_pictures_show_the_likeliest_codes_of_masked_patches_among_those_of_the_others(setting) -> None:
    method, batch = setting("beit")
    [view] = batch.views
    expected = method.teacher.codes(view.value)
    for sample, where in enumerate(view.mask.where):
        covered = method.backbone(view.value, cover=(view.mask.where, method.mask_token))[sample, 1:]
        expected[sample, where] = torch.stack([method.head(patch).argmax() for patch in covered[where]])
    assert method.reconstruct(batch).equal(method.teacher.decoded(expected))
    assert method.reconstruct(batch).shape == view.value.value.shape

"""SimMIM against transformers' ViTForMaskedImageModeling: the same weights, mask and pixels, loss and gradient."""

import torch
from small import shake
from torch import Tensor
from transformers import ViTForMaskedImageModeling
from transformers_names import SMALL_VIT, compare_gradients, renamed

from selfsup.masks import SquareMask
from selfsup.method import load
from selfsup.parts.patch import unpatchify


def theirs_of(ours: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights or gradients by their names: their head has channels first, ours (row, column, channel)."""
    encoder = {name: value for name, value in ours.items() if name.startswith("encoders.")}
    head = {
        f"decoder.0.{part}": ours[f"head.{part}"].unflatten(0, (16, 3)).transpose(0, 1).flatten(0, 1)
        for part in ("weight", "bias")
    }
    head["decoder.0.weight"] = head["decoder.0.weight"][..., None, None]
    return renamed(encoder) | head | {"vit.embeddings.mask_token": ours["mask_token"][None]}


def test_the_loss_is_transformers_in_value_and_gradient(setting) -> None:
    method, batch = setting("simmim")
    shake(method)
    theirs = ViTForMaskedImageModeling(SMALL_VIT)
    theirs.load_state_dict(theirs_of(method.state_dict()), strict=True)
    theirs.vit.embeddings.position_embeddings.requires_grad_(False)  # as ours are
    view = batch.views[0]
    pixels = unpatchify(view.value.value, grid=(4, 4), patch=4)
    loss, expected = method(batch).loss, theirs(pixels, bool_masked_pos=view.mask.where)
    torch.testing.assert_close(loss, expected.loss, rtol=1e-5, atol=0)
    painted = unpatchify(method.reconstruct(batch), grid=(4, 4), patch=4)
    torch.testing.assert_close(painted, expected.reconstruction, rtol=1e-4, atol=1e-5)
    compare_gradients(method, theirs, loss, expected.loss, theirs_of)


def test_masked_pixels_stay_hidden(setting) -> None:
    method, batch = setting("simmim")
    painted, pixels = method.reconstruct(batch), batch.views[0].value.value
    pixels.masked_fill_(batch.views[0].mask.removed[..., None], 1e3)
    assert method.reconstruct(batch).equal(painted)


def test_an_objective_asks_for_masked_squares_of_32_pixels() -> None:
    kind = load("simmim")
    [crop] = kind.views(kind.Hyper()).specs
    assert crop.mask == SquareMask(0.6, 2)  # of patches of 16
    assert crop.mask.typical((14, 14)) == (196, 4 * 30)  # 29.4 of 49 squares, rounded up

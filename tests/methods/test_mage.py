"""MAGE: its loss code by code, its contrast row by row, and what encoder, decoder and pictures see."""

import pytest
import torch
import torch.nn.functional as F
from loops.authors import copied, same_gradients
from loops.tokens import mages_loss
from precision import double_precision
from small import shake

from selfsup.method import load
from selfsup.parts.patch import patchify
from selfsup.variablemask import VariableMask

MAGE = load("mage")
NAMES = {"backbone": "encoders.image", "decoder": "decoder"}


@pytest.mark.parametrize("source", ["pixels", "decoded"])
def test_the_loss_is_worked_out_code_by_code(source: str, setting) -> None:
    method, batch = setting("mage", double=True, input=source)
    shake(method)
    student = copied(method, NAMES)
    student["mask"] = torch.nn.ParameterList([method.mask_token.detach().clone()])
    with double_precision():
        loss, expected = method(batch).loss, mages_loss(method, student, batch)
    torch.testing.assert_close(loss, expected, rtol=1e-9, atol=0)
    loss.backward()
    expected.backward()
    torch.testing.assert_close(method.mask_token.grad, student["mask"][0].grad, rtol=1e-9, atol=1e-12)
    same_gradients(method, student, NAMES)


def test_two_views_are_told_from_those_of_others(setting) -> None:
    """MAGE-C: codes of both views, and a tenth of the mean of both directions among the other views alone."""
    method, batch = setting("mage", contrast=0.1)
    out = method(batch)
    views = [method._read(view) for view in batch.views]
    torch.testing.assert_close(out.log["codes"], torch.stack([codes for codes, _ in views]).mean())
    torch.testing.assert_close(out.loss, out.log["codes"] + 0.1 * out.log["contrast"])
    one, two = (F.normalize(method.projector(hidden[:, 1:].mean(dim=1)), dim=1) for _, hidden in views)
    rows = [-(one @ two.T / 0.2).log_softmax(dim).diagonal().mean() for dim in (0, 1)]
    torch.testing.assert_close(out.log["contrast"], torch.stack(rows).mean())
    out.loss.backward()
    assert all(weight.grad.any() for weight in method.parameters() if weight.ndim > 1 and weight.requires_grad)


def test_masked_patches_reach_the_loss_by_their_codes_only(setting) -> None:
    method, batch = setting("mage")
    [view] = batch.views
    view.value.value.requires_grad_()
    method(batch).loss.backward()
    masked = torch.zeros(8, 16, dtype=torch.bool).scatter(1, view.mask.targets[:, 0], True)
    assert view.value.value.grad.any(dim=2).equal(~masked)
    assert method.seen(batch).any(dim=2).equal(~masked)


def test_pictures_are_painted_of_all_codes(setting) -> None:
    """Codes of visible patches stay: where none is masked wrongly, the picture is the tokenizer's own."""
    method, batch = setting("mage")
    [view] = batch.views
    codes = method.teacher.codes(view.value)
    with torch.no_grad():  # the decoder tells the code of each place by its bias alone, which is that of the first
        method.decoder.head.weight.zero_()
        method.decoder.head.bias.copy_(torch.arange(24) == 7)
    painted = patchify(method.reconstruct(batch), 4).value
    assert painted.equal(method.teacher.decoded(codes.scatter(1, view.mask.targets[:, 0], 7)))


def test_an_objective_masks_as_published() -> None:
    for knobs, number in (({}, 1), ({"contrast": 0.1}, 2)):
        crops = MAGE.views(MAGE.Hyper(**knobs)).specs
        assert [crop.mask for crop in crops] == [VariableMask(0.5, 0.55, 0.25)] * number

"""Omnivore against clips that pass one kernel of all their frames, images among them; and what its kinds share."""

import pytest
import torch
from loops.authors import copied, same_gradients
from loops.modalities import OMNIVORE, omnivore_loss
from precision import double_precision
from small import shake, without

from selfsup.errors import SpecError
from selfsup.spec import read


def test_value_and_gradient_are_those_of_clips_through_one_kernel(setting) -> None:
    """An image is a clip of two frames, the second black. An image and a clip have no label."""
    method, batch = setting("omnivore", samples=7, double=True, color_drop=0.5)
    shake(method)
    draws = torch.linspace(0.05, 0.95, 7, dtype=torch.float64)[:, None]
    batch = batch._replace(label=torch.tensor([0, 1, 2, -1, 2, -1, 1]), draws=draws)
    parts = copied(method, OMNIVORE)
    with double_precision():
        out, theirs = method(batch), omnivore_loss(parts, batch)
    torch.testing.assert_close(out.loss, theirs, rtol=1e-9, atol=0)
    out.loss.backward()
    theirs.backward()
    same_gradients(method, parts, OMNIVORE)


def test_a_process_without_clips_has_gradients_of_zeros(setting) -> None:
    method, batch = setting("omnivore")
    out = method(without(batch, range(8), "video"))
    out.loss.backward()
    assert all(weight.grad is not None for weight in method.parameters() if weight.requires_grad)
    assert not method.later.embed.weight.grad.any()
    assert not method.heads["video"].weight.grad.any()
    assert method.heads["depth"].weight.grad.any()
    unlabelled = batch._replace(label=batch.label.index_fill(0, batch.views[2].rows, -1))
    torch.testing.assert_close(method(unlabelled).loss, out.loss)


def test_depth_and_the_order_of_frames_are_seen(setting) -> None:
    """In double precision, where no order of summation changes as much."""
    method, batch = setting("omnivore", double=True)
    image, depth, clip = batch.views
    other, later = -depth.value.value, clip.value.value.roll(16, 1)  # by a token's time
    changed = [
        (image, depth._replace(value=depth.value._replace(value=other)), clip),
        (image, depth, clip._replace(value=clip.value._replace(value=later))),
    ]
    with double_precision():
        losses = [method(batch._replace(views=views)).loss.item() for views in (batch.views, *changed)]
    assert min(abs(losses[0] - loss) for loss in losses[1:]) > 1e-8


@pytest.mark.parametrize("kind", ["depth", "video"])
def test_a_kind_is_left_out(setting, kind: str) -> None:
    method, batch = setting("omnivore", kinds=(kind,))
    assert list(method(batch).log) == ["image_accuracy", f"{kind}_accuracy"]
    assert list(method.heads) == ["image", kind]
    assert [view.modality for view in batch.views] == ["image", kind]


def test_color_is_left_out_of_images_with_depth_alone() -> None:
    with pytest.raises(SpecError, match=r"color_drop: 0.25 has no effect with kinds: \('video',\); leave one"):
        read("scenes/omnivore", ["hyper.kinds=[video]", "hyper.color_drop=0.25"])

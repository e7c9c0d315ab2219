"""MixedAE against its equations in loops over images and patches, and timm's modules one by one."""

import pytest
import torch
from loops.masked import Mixing
from small import shake

from selfsup.method import load

MixedAE = load("mixedae")


@pytest.mark.parametrize("images", [2, 4])
def test_the_loss_is_the_papers_in_value_and_gradient(images: int, setting) -> None:
    method, batch = setting("mixedae", double=True, samples=4, images=images)
    shake(method)
    theirs, loss = Mixing(method), method(batch).loss
    expected = theirs(batch, images)
    torch.testing.assert_close(loss, expected.float(), rtol=1e-5, atol=0)
    loss.backward()
    expected.backward()
    renamed = {"encoder": "encoders.image", "decoder": "decoder", "segments": "segments"}
    ours = dict(method.named_parameters())
    for name, weight in theirs.named_parameters():
        part, _, rest = name.partition(".")
        if weight.requires_grad:
            own = ours[f"{renamed[part]}.{rest}" if rest else part].grad
            torch.testing.assert_close(
                own, weight.grad, rtol=1e-3, atol=1e-6, msg=lambda text, name=name: f"{name}: {text}"
            )


def test_each_image_has_an_equal_share_of_the_mixed_one(setting) -> None:
    method, batch = setting("mixedae", images=4)
    (mask, source), mixed = method._shares(batch), method.seen(batch)
    assert source.sort(dim=1).values.tolist() == [[0] * 4 + [1] * 4 + [2] * 4 + [3] * 4] * 2
    for image in range(8):
        own = (source[image // 4] == image % 4).nonzero()[:, 0]
        assert mask.keep[image].sort().values.equal(own)
        assert mixed[image, own].equal(batch.views[0].value.value[image, own])
    assert mask.order.sort(dim=1).values.equal(torch.arange(16).expand(8, -1))


def test_a_picture_is_painted_from_the_patches_of_its_own_alone(setting) -> None:
    """Which are where they were; the mixed image is what the encoder sees, of four for each of them."""
    method, batch = setting("mixedae", images=4)
    seen, original = method.seen(batch), batch.views[0].value.value.clone()
    assert seen[:4].equal(seen[:1].expand(4, -1, -1))
    removed = method._shares(batch)[0].removed
    painted = method.reconstruct(batch)
    assert painted.shape == (8, 3, 16, 16)
    batch.views[0].value.value.masked_fill_(removed[..., None], 1e3)
    assert method.seen(batch).equal(seen)
    assert original[~removed].equal(batch.views[0].value.value[~removed])

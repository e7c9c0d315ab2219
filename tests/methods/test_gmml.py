"""GMML: the error of replaced patches alone, of both views; noise where they were; SiT's contrast beside it."""

import torch
from lightly.loss import NTXentLoss
from precision import double_precision

from selfsup.parts import noise


def test_the_error_is_of_replaced_patches(setting) -> None:
    method, batch = setting("gmml", double=True, contrast=0.7)
    errors, vectors = [], []
    for number, view in enumerate(batch.views):
        where = view.mask.where
        loud = noise.gaussian(batch.draws[:, 2 * number : 2 * number + 2], (16, 48))
        seen = view.value._replace(value=torch.where(where[..., None], loud, view.value.value))
        features = method.backbone(seen)
        errors.append((method.painter(features[:, 1:]) - view.value.value).abs()[where].mean())
        vectors.append(method.projector(features.mean(dim=1)))
    with double_precision():
        expected = sum(errors) / 2 + 0.7 * NTXentLoss(temperature=0.2)(*vectors)
        out = method(batch)
    torch.testing.assert_close(out.loss, expected, rtol=1e-6, atol=0)
    weights = [weight for weight in method.parameters() if weight.requires_grad]
    slopes = (torch.autograd.grad(loss, weights) for loss in (out.loss, expected))
    torch.testing.assert_close(*slopes, rtol=1e-4, atol=1e-8)


def test_a_picture_shows_noise_where_patches_were(setting) -> None:
    method, batch = setting("gmml")
    tokens, where = batch.views[0].value.value, batch.views[0].mask.where
    seen = method.seen(batch)
    assert (seen == tokens).all(dim=2).equal(~where)
    assert method.reconstruct(batch).shape == tokens.shape

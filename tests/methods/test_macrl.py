"""MACRL: both branches painted patch by patch, and the strong one's query among keys, sample by sample."""

import torch
from precision import double_precision
from torch import Tensor

from selfsup.method import Method, load
from selfsup.parts.patch import unpatchify


def encoded(trunk, tokens: Tensor, keep: Tensor) -> Tensor:
    """(16, P), (K,) -> (1 + K, D): the visible patches of one image through timm's modules."""
    patches = trunk.patch_embed(unpatchify(tokens[None], grid=(4, 4), patch=4))[0] + trunk.pos_embed[0, 1:]
    x = torch.cat([trunk.cls_token[0] + trunk.pos_embed[0, :1], patches[keep]])
    return trunk.norm(trunk.blocks(x[None]))[0]


def errors(method: Method, features: Tensor, tokens: Tensor, keep: Tensor) -> Tensor:
    """The absolute errors of the patches of one image that are not visible, in the order of the grid."""
    decoder, seen = method.decoder, method.decoder.embed(features)
    places = decoder.mask_token[0].repeat(16, 1).index_put((keep,), seen[1:]) + decoder.places.positions
    x = decoder.blocks(torch.cat([seen[:1], places])[None])
    painted = decoder.head(decoder.norm(x))[0, 1:]
    return torch.stack([(painted[place] - tokens[place]).abs() for place in range(16) if place not in keep])


def expected(method: Method, batch) -> Tensor:
    painted, contrast = [], []
    for sample in range(8):
        for branch, view in enumerate(batch.views):
            tokens, keep = view.value.value[sample], view.mask.keep[sample]
            features = encoded(method.backbone.trunk, tokens, keep)
            painted.append(errors(method, features, tokens, keep).mean())
            if branch == 0:
                query = method.projector(features[1:].mean(0))
            else:
                with torch.no_grad():
                    key = method.key_projector(encoded(method.key.trunk, tokens, keep)[1:].mean(0))
        rows = torch.stack([key / key.norm(), *method.queue.rows])
        scores = rows @ (query / query.norm()) / 0.3
        contrast.append(scores.logsumexp(0) - scores[0])
    return torch.stack(painted).mean() + 0.5 * torch.stack(contrast).mean()


def test_the_loss_is_worked_out_image_by_image(setting, moved) -> None:
    method, batch = setting("macrl", double=True, contrast=0.5, temperature=0.3)
    moved(method.key, method.key_projector)
    with double_precision():
        loss, theirs = method(batch).loss, expected(method, batch)
    torch.testing.assert_close(loss, theirs, rtol=1e-6, atol=0)
    weights = [weight for weight in method.parameters() if weight.requires_grad]
    slopes = (torch.autograd.grad(value, weights) for value in (loss, theirs))
    torch.testing.assert_close(*slopes, rtol=1e-4, atol=1e-8)


def test_branches_differ_in_masks_and_keys_are_of_the_weak_one(setting) -> None:
    """Twelve of sixteen patches are hidden, and eight; keys change with the weak branch alone, and enter the queue."""
    method, batch = setting("macrl")
    assert [view.mask.hide.shape[1] for view in batch.views] == [12, 8]
    keys = method(batch).aux["keys"]
    strong, weak = (view.value.value for view in batch.views)
    strong.neg_()
    assert method(batch).aux["keys"].equal(keys)
    weak.neg_()
    assert not method(batch).aux["keys"].isclose(keys).all(dim=1).any()
    method.after_step(0.0, {"keys": keys})
    assert method.queue.rows[:8].equal(keys)


def test_a_picture_is_of_the_strong_branch(setting) -> None:
    method, batch = setting("macrl")
    tokens, mask = batch.views[0].value.value, batch.views[0].mask
    assert method.seen(batch).equal(tokens.masked_fill(mask.removed[..., None], 0.0))
    painted = method.reconstruct(batch)
    assert painted.shape == tokens.shape
    error = (painted - tokens).abs()[mask.removed].mean()
    alone = batch._replace(views=(batch.views[0], batch.views[0]))
    torch.testing.assert_close(error, method(alone).log["painted"])
    assert load("macrl").views(load("macrl").Hyper()).specs[1].jitter == 0

import pytest
import torch

from selfsup.parts.contrastive import paired_sigmoid
from selfsup.spec import read


def test_value_and_gradient_of_the_loss_are_open_clips(setting) -> None:
    from open_clip.loss import SigLipLoss

    method, batch = setting("siglip")
    image, text = (vectors.detach().requires_grad_() for vectors in method.pair(batch))
    scale, bias = (torch.tensor(value, requires_grad=True) for value in (9.0, -3.0))
    ours, theirs = paired_sigmoid(image, text, scale=scale, bias=bias), SigLipLoss()(image, text, scale, bias)
    torch.testing.assert_close(ours, theirs)
    gradients = (torch.autograd.grad(loss, (image, text, scale, bias)) for loss in (ours, theirs))
    for mine, other in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, other)


def test_temperature_and_bias_begin_as_the_papers(setting) -> None:
    method, batch = setting("siglip")
    image, text = method.pair(batch)
    expected = paired_sigmoid(image, text, scale=torch.tensor(10.0), bias=torch.tensor(-10.0))
    torch.testing.assert_close(method(batch).loss, expected)


def test_the_recipe_has_the_papers_optimizer() -> None:
    """Section 4 of SigLIP's paper, arXiv 2303.15343."""
    optim = read("yfcc15m/siglip").optim
    assert (optim.name, optim.lr, optim.weight_decay, optim.betas) == ("adamw", 1e-3, 1e-4, (0.9, 0.95))


def test_a_text_that_is_read_in_both_directions_sees_no_padding(setting) -> None:
    method, batch = setting("siglip")
    tower, view = method.encoders["text"], batch.views[1].value
    tower.causal = False
    valid = torch.arange(8).expand(8, 8) < 5
    changed = view._replace(value=view.value.clone(), valid=valid)
    changed.value[:, 5:] = 9
    short = tower.pooled(view._replace(valid=valid))
    torch.testing.assert_close(short, tower.pooled(changed))
    first = tower(view)
    changed = view._replace(value=view.value.clone())
    changed.value[:, 7] += 1
    assert (tower(changed)[:, 0] - first[:, 0]).abs().max() > 1e-4
    assert tower(view)[:, 7].shape == (8, pytest.approx(32))

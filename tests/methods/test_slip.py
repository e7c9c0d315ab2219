import torch
from lightly.loss import NTXentLoss

from selfsup.spec import read


def test_the_loss_is_open_clips_and_lightlys(setting) -> None:
    from open_clip.loss import ClipLoss

    method, batch = setting("slip", ssl_weight=0.5, ssl_temperature=0.3)
    image, text = method.pair(batch)
    a, b = (method.projector(method.backbone.pooled(view.value)) for view in batch.views[1:3])
    expected = ClipLoss()(image, text, torch.tensor(1 / 0.07)) + 0.5 * NTXentLoss(temperature=0.3)(a, b)
    torch.testing.assert_close(method(batch).loss, expected)
    trained = {name: weight for name, weight in method.named_parameters() if weight.requires_grad}
    weights, losses = [*trained.values()], (method(batch).loss, expected)
    gradients = (torch.autograd.grad(loss, weights, allow_unused=True) for loss in losses)
    for name, mine, other in zip(trained, *gradients, strict=True):
        if name != "logits.log_scale":  # open_clip's scale is given
            torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-6)


def test_the_recipe_is_that_of_slips_authors() -> None:
    """Table 1 of arXiv 2112.12750: main.py of its code, and the README's command for a ViT-B/16."""
    spec = read("yfcc15m/slip")
    optim, hyper = spec.optim, spec.hyper
    assert (optim.name, optim.lr, optim.lr_rule, optim.betas, optim.weight_decay) == (
        "adamw",
        3e-3,
        "none",
        (0.9, 0.98),
        0.1,
    )
    assert (optim.warmup_lr, optim.min_lr, optim.warmup.epochs) == (1e-6, 1e-5, 1)
    assert (spec.train.batch, spec.train.duration.epochs) == (4096, 25)
    assert (hyper.ssl_hidden, hyper.ssl_dim, hyper.ssl_temperature, hyper.ssl_weight) == (4096, 256, 0.1, 1.0)

import torch
from lightly.loss import VICRegLoss

from selfsup.method import load


def test_the_loss_is_lightlys_of_the_expanded_views(setting) -> None:
    method, batch = setting("vicreg", invariance=10.0, variance=20.0, covariance=0.5)
    one, two = (method.expander(method.backbone.pooled(view.value)) for view in batch.views)
    torch.testing.assert_close(method(batch).loss, VICRegLoss(10.0, 20.0, 0.5)(one, two))


def test_the_views_are_the_papers() -> None:
    """Appendix C.1: BYOL's, made the same for both views: blur at 0.5, solarization at 0.1."""
    method = load("vicreg")
    first, second = method.views(method.Hyper()).specs
    assert first == second
    assert (first.scale, first.flip, first.jitter, first.gray) == ((0.08, 1.0), 0.5, 0.8, 0.2)
    assert (first.brightness, first.contrast, first.saturation, first.hue) == (0.4, 0.4, 0.2, 0.1)
    assert (first.blur, first.solarize) == (0.5, 0.1)


def test_the_authors_views_are_byols() -> None:
    """In their code, the first is always blurred, never solarized; the second is blurred at 0.1, solarized at 0.2."""
    method, byol = load("vicreg"), load("byol")
    views = method.views(method.Hyper(symmetric=False))
    assert views == byol.views(byol.Hyper())
    assert [(view.blur, view.solarize) for view in views.specs] == [(1.0, 0.0), (0.1, 0.2)]

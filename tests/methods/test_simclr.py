import math

import pytest
import torch
import torch.nn.functional as F
from lightly.loss import NTXentLoss
from torch import Tensor

from selfsup.method import load

SimCLR = load("simclr")


def test_the_loss_is_lightlys_of_the_projected_views(setting) -> None:
    method, batch = setting("simclr", temperature=0.3)
    a, b = (method.projector(method.backbone.pooled(view.value)) for view in batch.views)
    torch.testing.assert_close(method(batch).loss, NTXentLoss(temperature=0.3)(a, b))


def test_the_authors_loss_adds_both_directions(setting) -> None:
    """In their code: the mean over samples of the cross-entropy among 2N - 1 others, summed over the two views."""
    method, batch = setting("simclr", temperature=0.3, loss_scale=2.0)
    a, b = (F.normalize(method.projector(method.backbone.pooled(view.value)), dim=1) for view in batch.views)
    own, places = torch.eye(len(a), dtype=torch.bool), torch.arange(len(a))
    expected = torch.zeros(())
    for one, other in ((a, b), (b, a)):
        logits = torch.cat([one @ other.T, (one @ one.T).masked_fill(own, -1e9)], dim=1) / 0.3
        expected = expected + F.cross_entropy(logits, places)
    out = method(batch)
    torch.testing.assert_close(out.loss, expected)
    assert out.log["chance"] == pytest.approx(2 * math.log(2 * len(a) - 1))


def test_the_projector_is_as_wide_as_the_encoder_unless_told(setting) -> None:
    assert [tuple(w.shape) for w in weights(setting("simclr")[0].projector)] == [(48, 48), (128, 48)]
    assert [tuple(w.shape) for w in weights(setting("simclr", hidden=32, dim=16)[0].projector)] == [(32, 48), (16, 32)]


def test_the_views_are_the_papers() -> None:
    """Appendix A: crop and flip; jitter of 0.8s, 0.8s, 0.8s, 0.2s at 0.8; gray at 0.2; blur at 0.5, σ 0.1 to 2."""
    first, second = SimCLR.views(SimCLR.Hyper(strength=0.5)).specs
    assert first == second
    assert (first.scale, first.ratio, first.flip) == ((0.08, 1.0), (3 / 4, 4 / 3), 0.5)
    assert (first.brightness, first.contrast, first.saturation, first.hue) == (0.4, 0.4, 0.4, 0.1)
    assert (first.jitter, first.gray, first.blur, first.blur_sigma, first.solarize) == (0.8, 0.2, 0.5, (0.1, 2.0), 0)


def weights(module: torch.nn.Module) -> list[Tensor]:
    return [weight for weight in module.parameters() if weight.ndim == 2]

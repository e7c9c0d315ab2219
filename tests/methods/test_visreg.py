"""VISReg: its loss against lightly's on its own views; what it asks of the stream."""

import pytest
import torch
from lightly.loss import VISRegLoss

from selfsup.method import load
from selfsup.parts.multicrop import pooled
from selfsup.parts.sketches import directions


@pytest.mark.parametrize("crops", [0, 2])
def test_the_loss_is_lightlys_of_all_views(crops: int, setting, monkeypatch) -> None:
    """Sizes are normalized apart; step after step along directions of its own."""
    method, batch = setting("visreg", weight=0.8, scale=2.0, shape=3.0, center=0.5, local_crops=crops)
    theirs = VISRegLoss(0.8, num_slices=32, lambda_scale=2.0, lambda_shape=3.0, lambda_center=0.5)
    for step in range(2):
        features = pooled(method.backbone, batch.views)
        parts = [method.projector(torch.cat(part)) for part in (features[:4], features[4:]) if part]
        z = torch.cat(parts).view(4 + crops, 8, -1)
        along = directions(torch.tensor([[method.draws[0, 0], step * 2**-24]]), 16, 32)
        out = method(batch)
        monkeypatch.setattr(torch, "randn", lambda *_, along=along, **__: along.clone())
        known = theirs.forward_components(local_proj=z[4:], global_proj=z[:4])
        monkeypatch.undo()
        torch.testing.assert_close(out.loss, known.total, rtol=1e-4, atol=1e-6)
        terms = {name: getattr(known, name) for name in ("scale", "shape", "center")} | {"distance": known.pred}
        torch.testing.assert_close(dict(out.log), terms, rtol=1e-4, atol=1e-6)
        method.after_step(step / 10, {})


def test_views_are_those_of_the_authors() -> None:
    """Four large and six small crops; in their code a tenth is solarized, as a half of a fifth."""
    method = load("visreg")
    views = method.views(method.Hyper()).specs
    assert [view.size for view in views] == [None] * 4 + [96] * 6
    assert {(view.scale, view.solarize) for view in views} == {((0.3, 1.0), 0.1), ((0.05, 0.3), 0.1)}

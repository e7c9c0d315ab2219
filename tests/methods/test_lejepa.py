"""LeJEPA: its loss against lightly's on its own views; its directions from step to step; what it asks of the stream."""

import pytest
import torch
from lightly.loss import LeJEPALoss

from selfsup.method import load
from selfsup.parts.multicrop import pooled
from selfsup.parts.sketches import directions


@pytest.mark.parametrize("kind", ["vit", "narrow cnn"])
def test_the_loss_is_lightlys_of_all_views(kind: str, setting) -> None:
    """Step after step, each along directions of its own."""
    method, batch = setting("lejepa", kind, weight=0.02, highest=4.0)
    for step in range(3):
        z = method.projector(torch.cat(pooled(method.backbone, batch.views))).view(4, 8, -1)
        along = directions(torch.tensor([[method.draws[0, 0], step * 2**-24]]), 16, 32)
        theirs = LeJEPALoss(0.02, sigreg_t_max=4.0)
        theirs.sigreg._generate_unit_vectors = lambda *_, along=along: along
        out = method(batch)
        torch.testing.assert_close(out.loss, theirs(local_proj=z[2:], global_proj=z[:2]), rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(out.loss, 0.98 * out.log["distance"] + 0.02 * out.log["sigreg"])
        method.after_step(step / 10, {})


def test_every_step_has_directions_of_its_own_and_every_seed(setting) -> None:
    method, batch = setting("lejepa")
    same, _ = setting("lejepa")
    other, _ = setting("lejepa", seed=1)
    first = method(batch).log["sigreg"]
    assert method.draws.equal(same.draws)
    assert method.draws[0, 0] != other.draws[0, 0]
    method.after_step(0.0, {})
    assert not method(batch).log["sigreg"].equal(first)


def test_views_are_those_of_the_authors() -> None:
    """The README's: two large and six small crops, all changed alike."""
    method = load("lejepa")
    views = method.views(method.Hyper()).specs
    assert [view.size for view in views] == [None] * 2 + [96] * 6
    assert {view.scale for view in views} == {(0.3, 1.0), (0.05, 0.3)}
    changes = {(v.jitter, v.brightness, v.contrast, v.saturation, v.hue, v.gray, v.blur, v.solarize) for v in views}
    assert changes == {(0.8, 0.4, 0.4, 0.2, 0.1, 0.2, 0.5, 0.2)}
    assert len(method.views(method.Hyper(large_crops=4, local_crops=0)).specs) == 4

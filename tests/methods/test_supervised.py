import pytest
import torch
import torch.nn.functional as F

from selfsup.method import load
from selfsup.optim import lr_at
from selfsup.spec import read


def test_the_loss_is_the_cross_entropy_of_labelled_samples(setting) -> None:
    method, batch = setting("supervised")
    batch = batch._replace(label=torch.tensor([0, -1, 2, 1, -1, -1, 2, 0]))
    logits = method.head(method.backbone.pooled(batch.views[0].value))
    labelled = batch.label >= 0
    torch.testing.assert_close(method(batch).loss, F.cross_entropy(logits[labelled], batch.label[labelled]))


def test_the_view_is_one_crop_without_changes_of_color() -> None:
    [crop] = load("supervised").views(load("supervised").Hyper()).specs
    assert (crop.scale, crop.ratio, crop.flip) == ((0.08, 1.0), (3 / 4, 4 / 3), 0.5)
    assert (crop.jitter, crop.gray, crop.blur, crop.solarize) == (0, 0, 0, 0)


def test_the_recipe_divides_its_learning_rate_by_ten_at_30_60_and_80_of_90_epochs() -> None:
    rates = [
        lr_at(10 * epoch + 1, read("in1k/supervised").optim, steps=900, warmup=50, peak=1.0) for epoch in range(90)
    ]
    assert rates[5:] == pytest.approx([1.0] * 25 + [0.1] * 30 + [0.01] * 20 + [0.001] * 10)

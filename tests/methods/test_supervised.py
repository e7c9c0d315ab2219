import pytest
import torch
import torch.nn.functional as F

from selfsup.method import Facts, load


def test_the_loss_is_the_cross_entropy_of_labelled_samples(setting) -> None:
    method, batch = setting("supervised")
    batch = batch._replace(label=torch.tensor([0, -1, 2, 1, -1, -1, 2, 0]))
    logits = method.head(method.backbone.pooled(batch.views[0]))
    labelled = batch.label >= 0
    torch.testing.assert_close(method(batch).loss, F.cross_entropy(logits[labelled], batch.label[labelled]))


def test_data_without_labels_are_refused(setting) -> None:
    method, _ = setting("supervised")
    with pytest.raises(ValueError, match=r"data\.train has none: pack a folder that has a subfolder for each class"):
        type(method)(type(method).Hyper(), {"image": method.backbone}, Facts(samples=8, classes=0, steps=10, epoch=2))


def test_the_view_is_one_crop_without_changes_of_colour() -> None:
    [crop] = load("supervised").views(load("supervised").Hyper()).crops
    assert (crop.scale, crop.ratio, crop.flip) == ((0.08, 1.0), (3 / 4, 4 / 3), 0.5)
    assert (crop.jitter, crop.gray, crop.blur, crop.solarize) == (0, 0, 0, 0)

import pytest
import torch
import torch.nn.functional as F
from precision import double_precision

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


def test_the_truth_is_shared_equally_among_tags(setting) -> None:
    """PyTorch's cross-entropy with shares of classes, and its gradient; a sample without tags does not count."""
    method, batch = setting("supervised", "vit", samples=3, double=True, tags=True)
    image, view = batch.views
    numbers, number = torch.tensor([[1, 4, 0, 0], [0] * 4, [3, 0, 0, 0]]), torch.tensor([[2], [0], [1]])
    value = view.value._replace(value=numbers[..., None], valid=torch.arange(4) < number)
    target = torch.zeros(2, 8)
    target[0, [1, 4]], target[1, 3] = 0.5, 1.0
    with double_precision():
        out, logits = method(batch._replace(views=(image, view._replace(value=value)))), method.predict(image.value)
        expected = F.cross_entropy(logits[[0, 2]], target.double())
    torch.testing.assert_close(out.loss, expected)
    best = logits.argmax(1)
    assert out.log["accuracy"] == ((best[0] == 1 or best[0] == 4).double() + (best[2] == 3).double()) / 2
    weights = [weight for weight in method.parameters() if weight.requires_grad]
    for mine, other in zip(*(torch.autograd.grad(loss, weights) for loss in (out.loss, expected)), strict=True):
        torch.testing.assert_close(mine, other)

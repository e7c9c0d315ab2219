"""E-SSL: its contrast view by view, its rotations crop by crop on images turned by hand, its head layer by layer."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from selfsup.method import load
from selfsup.parts.patch import patchify, unpatchify
from selfsup.spec import read

RECIPES = Path(__file__).parents[2] / "pipelines"


def left(image: Tensor) -> Tensor:
    """(1, C, S, S): what was the right edge, from top to bottom, becomes the top edge."""
    side = image.shape[2]
    made = torch.empty_like(image)
    for row in range(side):
        for column in range(side):
            made[:, :, row, column] = image[:, :, column, side - 1 - row]
    return made


def contrast(one: Tensor, two: Tensor, temperature: float) -> Tensor:
    """Each view against all views of the other kind; those of its own kind are left out."""
    similar = torch.stack([torch.stack([F.cosine_similarity(a, b, dim=0) for b in two]) for a in one]) / temperature
    chances = [similar[i].softmax(0)[i].log() + similar[:, i].softmax(0)[i].log() for i in range(len(one))]
    return -torch.stack(chances).mean() / 2


def test_the_loss_is_a_contrast_and_four_rotations_of_every_crop(setting) -> None:
    method, batch = setting("essl", equivariance=0.7, temperature=0.3)
    one, two = (method.projector(method.backbone.pooled(view.value)) for view in batch.views[:2])
    errors = []
    for image in unpatchify(batch.views[2].value.value, grid=(2, 2), patch=4).split(1):
        turned = image
        for turn in range(4):
            chances = method.predictor(method.backbone.pooled(patchify(turned, 4))).softmax(dim=1)
            errors.append(-chances[0, turn].log())
            turned = left(turned)
        assert turned.equal(image)
    out, rotation = method(batch), sum(errors) / 32
    torch.testing.assert_close(out.log["rotation"], rotation)
    torch.testing.assert_close(out.loss, contrast(one, two, 0.3) + 0.7 * rotation)


def test_images_are_turned_as_tokens_are(setting) -> None:
    method, batch = setting("essl", "cnn")
    crop, upside_down = batch.views[2].value, batch.views[2].value.flip(2, 3)
    copies = torch.cat([crop, left(crop), upside_down, left(upside_down)])
    chances = method.predictor(method.backbone.pooled(copies)).log_softmax(dim=1)
    truth = [number // 8 for number in range(32)]
    expected = -sum(chances[number, turn] for number, turn in enumerate(truth)) / 32
    torch.testing.assert_close(method(batch).log["rotation"], expected)


def test_the_crop_that_is_turned_is_the_papers() -> None:
    method = load("essl")
    first, second, small = method.views(method.Hyper()).specs
    assert (small.size, small.scale) == (96, (0.05, 0.14))
    assert (first.blur, second.blur, small.blur) == pytest.approx((1.0, 0.1, 0.1))
    assert (first.solarize, second.solarize, small.solarize) == (0.0, 0.2, 0.0)


@pytest.mark.parametrize(("bottleneck", "layers"), [(5, 3), (None, 2)])
def test_rotations_are_predicted_through_a_normalized_bottleneck_or_without(
    bottleneck: int | None, layers: int, setting
) -> None:
    method, _ = setting("essl", bottleneck=bottleneck)
    x = torch.randn(6, 48)
    linears = [module for module in method.predictor if isinstance(module, torch.nn.Linear)]
    expected = x
    for number, linear in enumerate(linears[:-1]):
        expected = expected @ linear.weight.T + linear.bias
        expected = (expected - expected.mean(1, True)) / (expected.var(1, correction=0, keepdim=True) + 1e-5).sqrt()
        if number < 2:  # none between the bottleneck and the answer
            expected = expected.clamp(min=0)
    assert [linear.out_features for linear in linears] == [64, 64, *[5] * (layers - 2), 4]
    expected = expected @ linears[-1].weight.T + linears[-1].bias
    torch.testing.assert_close(method.predictor(x), expected, rtol=1e-4, atol=1e-5)


def test_the_bottleneck_is_that_of_the_authors_code_for_each_data_set() -> None:
    found = {name: read(RECIPES / name / "essl.yaml").hyper.bottleneck for name in ("in1k", "cifar10")}
    assert found == {"in1k": 128, "cifar10": None}

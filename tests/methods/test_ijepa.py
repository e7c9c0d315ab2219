"""I-JEPA: its predictor against lightly's with the same weights, its targets and its dense term written out."""

import math

import pytest
import torch
from lightly_predictor import compare_gradients, theirs
from pydantic import ValidationError
from small import SMALL
from torch import Tensor

from selfsup.encoder import build
from selfsup.method import Batch, Method, TrainInfo, load
from selfsup.multiblock import MultiBlockMask
from selfsup.parts.tokens import places
from selfsup.sections import Backbone
from selfsup.tubemask import TubeBlocksMask

IJEPA = load("ijepa")
GAP = Backbone(  # without a class token, as theirs
    name="vit_huge_patch14_gap_224", image_size=16, patch_size=4, width=48, depth=2, heads=3, pool="mean"
)


def made(setting, moved, **hyper: object) -> tuple[Method, Batch]:
    _, batch = setting("ijepa")
    method = IJEPA(
        IJEPA.Hyper(**SMALL["ijepa"] | hyper),
        {"image": build(GAP, IJEPA.initialize)},
        TrainInfo(num_samples=8, num_classes=3, num_steps=10, steps_per_epoch=2),
    )
    moved(method.predictor, method.teacher)
    return method, batch


def normalized(method: Method, batch: Batch) -> Tensor:
    features = method.teacher(batch.views[0].value).detach()
    mean, var = features.mean(2, keepdim=True), features.var(2, keepdim=True, correction=0)
    return (features - mean) / (var + 1e-5).sqrt()


def test_the_loss_is_lightlys_predictor_against_normalized_features(setting, moved) -> None:
    method, batch = made(setting, moved)
    view, predictor = batch.views[0], theirs(method)
    blocks = list(view.mask.targets.unbind(1))
    predicted = predictor(method.backbone(view.value, view.mask.keep), view.mask.keep, blocks)
    features = normalized(method, batch)
    wanted = torch.cat([torch.stack([rows[at] for rows, at in zip(features, b, strict=True)]) for b in blocks])
    apart = (predicted - wanted).abs()
    expected = torch.where(apart < 1, apart.square() / 2, apart - 0.5).mean()
    loss = method(batch).loss
    torch.testing.assert_close(loss, expected)
    compare_gradients(method, predictor, loss, expected)


def test_the_loss_of_v_jepa_is_lightlys_predictor_by_absolute_errors_of_two_masks(setting, moved) -> None:
    """Two views of one part: small tubes and large ones, all of a mask at once; the mean of both errors."""
    method, _ = made(setting, moved, mask="tubes", long_targets=1, long_share=0.5, beta=0.0)
    _, batch = setting("ijepa", mask="tubes", long_targets=1, long_share=0.5)
    first, second = batch.views
    batch = batch._replace(views=(first, second._replace(value=first.value)))
    predictor, features, terms = theirs(method), normalized(method, batch), []
    for view in batch.views:
        numbers = view.mask.targets[:, 0]
        predicted = predictor(method.backbone(view.value, view.mask.keep), view.mask.keep, [numbers])
        wanted = torch.stack([rows[at] for rows, at in zip(features, numbers, strict=True)])
        terms.append((predicted - wanted).abs().mean())
    loss, expected = method(batch).loss, sum(terms) / 2
    torch.testing.assert_close(loss, expected)
    compare_gradients(method, predictor, loss, expected)


@pytest.mark.parametrize("beta", [1.0, 0.0])
def test_the_dense_term_of_ijepa_is_written_out(beta: float, setting, moved) -> None:
    method, batch = made(setting, moved, dense=0.5, beta=beta)
    view, features = batch.views[0], normalized(method, batch)
    seen = method.backbone(view.value, view.mask.keep)
    visible, _ = method.predictor(seen, view.mask.keep, view.mask.targets)
    place, terms = places((4, 4)).tolist(), []
    for sample in range(8):
        for block in range(2):
            for number, token in enumerate(view.mask.keep[sample].tolist()):
                others = view.mask.targets[sample, block].tolist()
                distance = min(math.dist(place[token], place[other]) for other in others)
                apart = (visible[sample, block, number] - features[sample, token]).abs()
                error = torch.where(apart < 1, apart.square() / 2, apart - 0.5) if beta else apart
                terms.append(error.mean() / distance**0.5)
    out, expected = method(batch), torch.stack(terms).mean()
    torch.testing.assert_close(out.log["visible"], expected)
    torch.testing.assert_close(out.loss, out.log["masked"] + 0.5 * out.log["visible"])
    weights = [*method.backbone.trunk.blocks.parameters(), *method.predictor.head.parameters()]
    slopes = (torch.autograd.grad(value, weights, retain_graph=True) for value in (out.log["visible"], expected))
    torch.testing.assert_close(*slopes, rtol=1e-3, atol=1e-6)


def test_the_encoder_sees_the_context_alone(setting) -> None:
    method, batch = setting("ijepa")
    tokens = batch.views[0].value.value.requires_grad_()
    method(batch).loss.backward()
    assert not tokens.grad[batch.views[0].mask.removed].any()


def test_the_teacher_follows_and_is_what_evaluation_gets(setting) -> None:
    method, _ = setting("ijepa", momentum=0.9)
    before = [weight.clone() for weight in method.teacher.parameters()]
    with torch.no_grad():
        for weight in method.backbone.parameters():
            weight.add_(1.0)
    method.after_step(0.5, {})  # half way from 0.9 to 1
    for old, new in zip(before, method.encoder("image").parameters(), strict=True):
        torch.testing.assert_close(new, old + 0.05)


def test_an_objective_asks_for_one_crop_with_blocks() -> None:
    [crop] = IJEPA.views(IJEPA.Hyper()).specs
    assert crop.mask == MultiBlockMask(4, (0.15, 0.2), (0.75, 1.5), (0.85, 1.0), 10)


def test_v_jepa_asks_for_one_part_twice_with_tubes_of_two_sizes() -> None:
    hyper = IJEPA.Hyper(mask="tubes", targets=8, target_min=0.15, target_max=0.15, long_targets=2)
    first, second = IJEPA.views(hyper).specs
    assert (first.mask, second.mask) == (TubeBlocksMask(8, (0.15, 0.15)), TubeBlocksMask(2, (0.7, 0.7)))
    assert (first.of, second.of) == (None, 0)


def test_a_predictor_of_broken_heads_is_refused() -> None:
    with pytest.raises(ValidationError, match="predictor_width 384 does not divide into 7 predictor_heads"):
        IJEPA.Hyper(predictor_heads=7)

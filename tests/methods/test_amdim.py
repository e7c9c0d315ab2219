"""AMDIM: its scores, loss and penalty in loops, and which features are matched with which."""

import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from selfsup.batch import View
from selfsup.method import Batch, Method, load
from selfsup.parts.contrastive import places_nce
from selfsup.spec import read

RECIPE = Path(__file__).parents[2] / "pipelines" / "in1k" / "amdim.yaml"


def reference(antecedent: torch.Tensor, places: torch.Tensor, clip: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Section 3.3 in float64: every place of the image against those of all other images."""
    antecedent, places, losses, squares = antecedent.double(), places.double(), [], []
    for i, whole in enumerate(antecedent):
        raw = places @ whole / math.sqrt(len(whole))  # (N, P)
        squares.append(raw.square().mean())
        scores = torch.exp(clip * torch.tanh(raw / clip))
        distractors = sum(scores[j].sum() for j in range(len(antecedent)) if j != i)
        losses += [-torch.log(own / (own + distractors)) for own in scores[i]]
    return torch.stack(losses).mean(), torch.stack(squares).mean()


@pytest.mark.parametrize("clip", [1.0, 20.0])
def test_places_are_told_from_those_of_other_images(clip: float) -> None:
    antecedent, places = 3 * torch.randn(5, 7), 3 * torch.randn(5, 4, 7)
    antecedent.requires_grad_()
    places.requires_grad_()
    for found, expected in zip(
        places_nce(antecedent, places, clip=clip), reference(antecedent, places, clip), strict=True
    ):
        torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-7)
        ours, theirs = (
            torch.autograd.grad(value, (antecedent, places), retain_graph=True) for value in (found, expected)
        )
        for one, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-6)


def mirrored(batch: Batch, view: View) -> Tensor:
    """Return the images of a view, column by column the other way round where the sample's third draw says so."""
    images = view.value.clone()
    for image, draw in zip(images, batch.draws[:, 2], strict=True):
        if draw < 0.5:
            image.copy_(torch.stack([image[:, :, -1 - column] for column in range(image.shape[2])], dim=2))
    return images


def trained(method: Method) -> Method:
    """Return the method with hidden layers that add something, which at first they do not."""
    for embed in (method.whole, method.coarse, method.fine):
        torch.nn.init.normal_(embed.hidden[2].weight, std=0.1)
    return method


def test_whole_to_places_of_two_scales_and_place_to_places_in_both_directions(setting) -> None:
    method, batch = setting("amdim", clip=5.0, penalty=0.1)
    trained(method)
    seen = []
    for view in batch.views:
        images = mirrored(batch, view)
        *_, fine, coarse = method.backbone.stages(images)  # 4x4 and 2x2: small enough to be taken as they are
        whole = method.whole(method.backbone.pooled(images))
        maps = [
            embed(x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])).reshape(8, -1, 24)
            for embed, x in ((method.coarse, coarse), (method.fine, fine))
        ]
        seen.append((whole, *maps))
    total = 0.0
    for source, target, draw in ((0, 1, 0), (1, 0, 1)):
        whole, coarse, _ = seen[source]
        picked = torch.stack([coarse[n, int(4 * batch.draws[n, draw])] for n in range(8)])
        for antecedent, consequent in ((whole, seen[target][1]), (whole, seen[target][2]), (picked, seen[target][1])):
            loss, penalty = reference(antecedent, consequent, 5.0)
            total = total + (loss + 0.1 * penalty) / 2
    torch.testing.assert_close(method(batch).loss.double(), total, rtol=1e-4, atol=0)


def test_large_maps_are_averaged_down(setting) -> None:
    method, batch = setting("amdim", fine=2, coarse=1)
    _, coarse, fine = method._scales(batch.views[0].value)
    assert (coarse.shape[1], fine.shape[1]) == (1, 4)
    *_, maps, _ = method.backbone.stages(batch.views[0].value)
    blocks = maps.reshape(8, -1, 2, 2, 2, 2).mean((3, 5)).flatten(2).mT  # 4x4 in squares of 2x2
    expected = method.fine(blocks.reshape(-1, maps.shape[1])).reshape(8, 4, -1)
    torch.testing.assert_close(fine, expected)


def test_an_embedding_adds_a_hidden_layer_to_a_linear_one_and_normalizes_the_sum(setting) -> None:
    method, _ = setting("amdim")
    embed, x = trained(method).fine, torch.randn(9, 64)
    first, second = (embed.hidden[layer].weight for layer in (0, 2))
    total = x @ embed.linear.weight.T + embed.linear.bias + (x @ first.T).clamp(min=0) @ second.T
    expected = (total - total.mean(0)) / (total.var(0, correction=0) + 1e-5).sqrt()
    torch.testing.assert_close(embed(x), expected, rtol=1e-4, atol=1e-5)


def test_a_wide_enough_embedding_begins_as_a_normalized_copy(setting) -> None:
    method, _ = setting("amdim", "whole cnn", dim=520)
    x = torch.randn(64, 512)
    own = F.batch_norm(x, None, None, training=True)
    cosine = F.cosine_similarity(method.coarse(x)[:, :512], own, dim=0)
    assert cosine.min() > 0.97  # 511 other channels weigh at most 0.01 each: 0.13 in all, about 0.006 of the cosine


def test_both_views_are_mirrored_together_and_their_shapes_are_the_codes() -> None:
    kind = load("amdim")
    views = kind.views(kind.Hyper())
    assert views.draws == 3  # a place of each view, and the mirror
    for crop in views.specs:
        assert (crop.scale, crop.ratio, crop.flip) == ((0.3, 1), (0.7, 1.4), 0.0)
        assert (crop.jitter, crop.brightness, crop.contrast, crop.saturation, crop.hue) == (0.8, 0.4, 0.4, 0.4, 0.1)
        assert (crop.gray, crop.blur, crop.solarize) == (0.25, 0, 0)


def test_the_penalty_is_the_papers_and_in_the_recipe_the_codes() -> None:
    assert (load("amdim").Hyper().penalty, read(RECIPE).hyper.penalty) == (0.04, 0.05)

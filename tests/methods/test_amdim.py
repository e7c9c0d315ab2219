"""AMDIM: its scores, loss and penalty in loops, and which features are matched with which."""

import math

import pytest
import torch

from selfsup.parts.contrastive import places_nce


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


def test_whole_to_places_of_two_scales_and_place_to_places_in_both_directions(setting) -> None:
    method, batch = setting("amdim", clip=5.0, penalty=0.1)
    seen = []
    for view in batch.views:
        *_, fine, coarse = method.backbone.stages(view.value)  # 4x4 and 2x2: small enough to be taken as they are
        whole = method.whole(method.backbone.pooled(view.value))
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

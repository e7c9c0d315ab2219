"""The contrastive random walk: patches cut and resized by torchvision, walks by probabilities, step by step."""

import pytest
import torch
import torch.nn.functional as F
from precision import double_precision
from torch import Tensor
from torchvision.transforms.functional import resized_crop

from selfsup.errors import SpecError
from selfsup.method import load
from selfsup.parts.noise import uniform
from selfsup.parts.patch import patchify, unpatchify
from selfsup.parts.pretext import inner_boxes
from selfsup.sections import Backbone, Setup, Train
from selfsup.spec import read

RandomWalk = load("random_walk")
PATCH, TIMES, GRID = (2, 4, 4), 4, 3  # 16 pixels: patches of 8 at 0, 4 and 8


def patches(clip: Tensor, boxes: Tensor) -> Tensor:
    """(C, 8, 16, 16), (TIMES * 9, 4) -> (TIMES * 9, C, 2, 8, 8)"""
    made = []
    for number, box in enumerate(boxes.int().tolist()):
        time, place = divmod(number, GRID**2)
        top, left = 4 * (place // GRID), 4 * (place % GRID)
        whole = clip[:, 2 * time : 2 * time + 2, top : top + 8, left : left + 8]
        made.append(resized_crop(whole, *box, [8, 8]))
    return torch.stack(made)


def come_back(nodes: Tensor, is_left: Tensor) -> Tensor:
    """(TIMES, 9, D), (2, TIMES - 1, 9, 9) -> (): of -log p that a walk of two or three steps is back, the mean"""
    likes = [(nodes[time] @ nodes[time + 1].T / 0.05).exp() for time in range(TIMES - 1)]
    out = [like * left for like, left in zip(likes, is_left[0], strict=True)]
    home = [like.T * left for like, left in zip(likes, is_left[1], strict=True)]
    out, home = ([step / step.sum(1, keepdim=True) for step in steps] for steps in (out, home))
    two = out[0] @ out[1] @ home[1] @ home[0]
    three = out[0] @ out[1] @ out[2] @ home[2] @ home[1] @ home[0]
    return -torch.stack([walk[node, node].log() for walk in (two, three) for node in range(GRID**2)]).mean()


def test_value_and_gradient_are_those_of_walks_from_patch_to_patch(setting) -> None:
    method, batch = setting("random_walk", double=True, samples=3)
    tokens = batch.views[0].value
    clips = unpatchify(tokens.value, grid=tokens.grid, patch=PATCH)
    boxes = inner_boxes(uniform(batch.draws[:, :2], (TIMES * GRID**2, 4)), 8, (0.7, 0.9))
    is_left = uniform(batch.draws[:, 2:], (2, TIMES - 1, GRID**2, GRID**2)) >= 0.1
    assert 0.87 < is_left.double().mean() < 0.93
    losses = []
    for clip, own, left in zip(clips, boxes, is_left, strict=True):
        cut = patches(clip, own)
        nodes = F.normalize(method.head(method.backbone.pooled(patchify(cut, PATCH))), dim=1)
        losses.append(come_back(nodes.view(TIMES, GRID**2, -1), left))
    expected = torch.stack(losses).mean()
    with double_precision():
        loss = method(batch).loss
    torch.testing.assert_close(loss, expected, rtol=1e-9, atol=0)
    weights = [weight for weight in method.parameters() if weight.requires_grad]
    for ours, theirs in zip(torch.autograd.grad(loss, weights), torch.autograd.grad(expected, weights), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-7, atol=1e-10)


def test_clips_that_cannot_be_walked_are_refused() -> None:
    vit = Backbone(name="vit_tiny_patch16_224", image_size=48, patch_size=8)
    setup = Setup(vit, Train(duration={"steps": 4}), 1, (8, 48, 48), (2,), "video")

    def refused(setup: Setup, grid: int = 5) -> list[SpecError]:
        return list(RandomWalk.check(RandomWalk.Hyper(grid=grid), setup))

    assert refused(setup) == []
    [error] = refused(setup, 7)
    assert error.bare == "7 patches along 48 pixels, each half over the next one, are of no whole tokens"
    assert refused(setup, 4)  # of 18 pixels, and 48 are no multiple of five
    [error] = refused(setup._replace(sizes=(4, 48, 48)))
    assert error.bare == "walks go over 2 times, the frames of a token each; expected 3 or more"
    assert error.paths == ("input.video.frames", "input.video.tubelet")


def test_patches_and_crops_of_the_recipe_are_those_of_the_authors() -> None:
    """64 pixels, half over the next one, in the README's training command, and crops of utils/augs.py."""
    hyper = read("k400/random_walk").hyper
    side = 2 * 256 // (hyper.grid + 1)
    assert (side, hyper.grid) == (64, len(range(0, 256 - 64 + 1, 32)))
    [crop] = RandomWalk.views(hyper).specs
    assert (crop.scale, crop.ratio, hyper.part_min) == ((0.8, 0.95), (0.7, 1.3), 0.7)


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_dropped_edges_are_drawn_anew_for_each_sample(setting, dropout: float) -> None:
    method, batch = setting("random_walk", dropout=dropout)
    again = batch._replace(draws=torch.cat([batch.draws[:, :2], batch.draws[:, 2:].roll(1, 0)], dim=1))
    assert method(batch).loss.equal(method(again).loss) == (dropout == 0)

"""Objectives that learn from clips alone, clip by clip, at their recipes' settings: 8 frames of 16 pixels."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.transforms.functional import resized_crop

from selfsup.batch import Batch
from selfsup.method import Method
from selfsup.parts.patch import patchify, unpatchify

from .authors import adamw, copied, learn, named, trained, warm
from .masked import matrices
from .ours import Trained
from .pretext import hashed
from .recipes import of_recipe

NAMES = {"backbone": "encoders.video", "head": "head"}
PATCH, TIMES, GRID = (2, 4, 4), 4, 3
NODES = GRID**2


def clips(batch: Batch) -> Tensor:
    tokens = batch.views[0].value
    return unpatchify(tokens.value, grid=tokens.grid, patch=PATCH)


def numbers(draws: Tensor, *shape: int) -> Tensor:
    """(2,) -> (*shape) in [0, 1), by words of 32 bits"""
    first, second = (draws * 2**24).tolist()
    mine, count = hashed(int(second) + 2**24), torch.Size(shape).numel()
    words = [hashed(hashed((number * 0x9E3779B9 + int(first)) % 2**32) ^ mine) for number in range(count)]
    return torch.tensor([word // 2**8 / 2**24 for word in words], dtype=torch.float64).view(shape)


def part(patch: Tensor, draws: list[float]) -> Tensor:
    """(C, 2, 8, 8) -> the same: a part of 0.7 to 0.9 of it, cut and resized"""
    area, ratio = 64 * (0.7 + 0.2 * draws[0]), (4 / 3) ** (2 * draws[1] - 1)
    height, width = (min(8, round((area * shape) ** 0.5)) for shape in (1 / ratio, ratio))
    top, left = int(draws[2] * (9 - height)), int(draws[3] * (9 - width))
    return resized_crop(patch, top, left, height, width, [8, 8])


def random_walk(method: Method, batches: list[Batch]) -> Trained:
    """Adam, whose rate falls once; walks of two and three steps out and back, edge by edge."""
    student = copied(method, NAMES)

    def loss(student: nn.ModuleDict, _: nn.ModuleDict, batch: Batch, step: int) -> Tensor:  # noqa: ARG001
        losses = []
        for clip, draws in zip(clips(batch), batch.draws, strict=True):
            boxes, edges = numbers(draws[:2], TIMES * NODES, 4), numbers(draws[2:], 2, TIMES - 1, NODES, NODES)
            patches = [
                part(clip[:, 2 * time : 2 * time + 2, top : top + 8, left : left + 8], boxes[number].tolist())
                for number, (time, top, left) in enumerate(
                    (time, top, left) for time in range(TIMES) for top in (0, 4, 8) for left in (0, 4, 8)
                )
            ]
            vectors = student["head"](student["backbone"].pooled(patchify(torch.stack(patches), PATCH)))
            nodes = F.normalize(vectors, dim=1).view(TIMES, NODES, -1)
            step_of = []
            for way in range(2):
                pairs = [(nodes[time], nodes[time + 1])[:: 1 - 2 * way] for time in range(TIMES - 1)]
                likes = [(here @ there.T / 0.05).exp() for here, there in pairs]
                likes = [like * (drawn >= 0.1) for like, drawn in zip(likes, edges[way], strict=True)]
                step_of.append([like / like.sum(1, keepdim=True) for like in likes])
            (a, b, c), (back_a, back_b, back_c) = step_of
            walks = a @ b @ back_b @ back_a, a @ b @ c @ back_c @ back_b @ back_a
            losses.append(-torch.stack([walk.diagonal().log() for walk in walks]).mean())
        return torch.stack(losses).mean()

    rate = lambda step: 1e-4 * (0.3 if step >= 8 else 1.0)  # noqa: E731
    losses, _ = learn(student, loss, batches, adamw(student, rate, lambda *_: 0.0))
    return trained(losses, named(student, NAMES))


def cubic_puzzles(method: Method, batches: list[Batch]) -> Trained:
    """Cells are of one token in time and two in space, pieces of one; in one channel, in one of 24 orders."""
    student = copied(method, NAMES)

    def loss(student: nn.ModuleDict, _: nn.ModuleDict, batch: Batch, step: int) -> Tensor:  # noqa: ARG001
        losses = []
        for clip, (kind, slot, order, channel, *places) in zip(clips(batch), batch.draws.tolist(), strict=True):
            seen, one, pieces = clip[[int(3 * channel)] * 3], int(4 * slot), []
            for number in range(4):
                time, place = (number, one) if kind < 0.5 else (one, number)
                top = 8 * (place // 2) + int(5 * places[3 * number + 1])
                left = 8 * (place % 2) + int(5 * places[3 * number + 2])
                pieces.append(seen[:, 2 * time : 2 * time + 2, top : top + 4, left : left + 4])
            features = student["backbone"].pooled(patchify(torch.stack(pieces), PATCH))
            row = features[method.orders[int(24 * order)].tolist()].flatten()
            losses.append(-student["head"](row[None]).log_softmax(dim=1)[0, int(24 * order)])
        return torch.stack(losses).mean()

    losses, _ = learn(student, loss, batches, adamw(student, warm(1.5e-4 * 2), matrices, betas=(0.9, 0.95)))
    return trained(losses, named(student, NAMES))


LOOPS = {
    "random_walk": of_recipe("k400/random_walk", random_walk, "vit", grid=GRID, dim=16),
    "cubic_puzzles": of_recipe("k400/cubic_puzzles", cubic_puzzles, "vit", hidden=32),
}

"""Cubic puzzles: which cells they are of, and pieces cut by slices, in the order that a sample's draw names."""

import pytest
import torch
import torch.nn.functional as F
from precision import double_precision

from selfsup import encoder
from selfsup.contract import random_batch
from selfsup.errors import SpecError
from selfsup.input_kinds import InputKinds, views_of
from selfsup.method import Batch, Method, TrainInfo, load
from selfsup.parts.patch import patchify, unpatchify
from selfsup.pipelines.modalities.video import VideoInput
from selfsup.sections import Backbone, InputShape, Setup, Train
from selfsup.spec import read

CubicPuzzles = load("cubic_puzzles")
VIT = Backbone(name="vit_tiny_patch16_224", image_size=24, patch_size=4, width=48, depth=1, heads=3)
SIZES, PATCH = (16, 24, 24), (2, 4, 4)
CELL, PIECE = (4, 12, 12), (2, 8, 8)  # 0.5 of two tokens, 0.71 of three


def cubic_puzzles(puzzles: str, *, colors: bool = False) -> tuple[Method, Batch]:
    """Return an objective on cells in which pieces have room, in double precision, and six clips."""
    hyper, video = CubicPuzzles.Hyper(puzzles=puzzles, colors=colors, hidden=24), VideoInput(frames=16)
    with double_precision():
        trunk = encoder.build(VIT, CubicPuzzles.initialize, InputShape(3, SIZES, (2,)))
        method = CubicPuzzles(hyper, {"video": trunk}, TrainInfo(6, 3, 10, 2, sizes=SIZES))
        views = views_of(CubicPuzzles.views(hyper), InputKinds("video", video), VIT)
        return method, random_batch(views, trunk.patch, 6)


@pytest.mark.parametrize(("puzzles", "share"), [("space", 0.0), ("time", 1.0), ("both", 0.5)])
@pytest.mark.parametrize("colors", [False, True])
def test_value_and_gradient_are_those_of_pieces_cut_by_slices(puzzles: str, share: float, colors: bool) -> None:
    method, batch = cubic_puzzles(puzzles, colors=colors)
    tokens, rows, truth = batch.views[0].value, [], []
    shown = unpatchify(tokens.value, grid=tokens.grid, patch=PATCH)
    for clip, (kind, slot, order, channel, *places) in zip(shown, batch.draws.tolist(), strict=True):
        seen = clip if colors else clip[[int(3 * channel)] * 3]
        one, pieces = int(4 * slot), []
        for number in range(4):
            down, across = divmod(number, 2)
            cell = (number, *divmod(one, 2)) if kind < share else (one, down, across)
            axes = zip(cell, CELL, PIECE, places[3 * number :], strict=False)
            at = [begin * whole + int(draw * (whole - piece + 1)) for begin, whole, piece, draw in axes]
            pieces.append(seen[:, at[0] : at[0] + 2, at[1] : at[1] + 8, at[2] : at[2] + 8])
        features = method.backbone.pooled(patchify(torch.stack(pieces), PATCH))
        truth.append(int(24 * order))
        rows.append(torch.cat([features[place] for place in method.orders[truth[-1]].tolist()]))
    expected = F.cross_entropy(method.head(torch.stack(rows)), torch.tensor(truth))
    with double_precision():
        out = method(batch)
    torch.testing.assert_close(out.loss, expected, rtol=1e-9, atol=0)
    weights = [weight for weight in method.parameters() if weight.requires_grad]
    grads = (torch.autograd.grad(value, weights) for value in (out.loss, expected))
    for ours, theirs in zip(*grads, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-7, atol=1e-10)


def test_all_orders_of_four_pieces_are_asked_for() -> None:
    method, batch = cubic_puzzles("both")
    assert len({tuple(row) for row in method.orders.tolist()}) == 24
    batch.draws[:] = 1 - 2**-24  # rounds to 1 when multiplied
    assert method(batch).loss.isfinite()


def test_clips_without_four_by_two_by_two_cells_are_refused() -> None:
    setup = Setup(VIT, Train(duration={"steps": 4}), 1, (6, 24, 24), (2,), "video")
    [error] = CubicPuzzles.check(CubicPuzzles.Hyper(), setup)
    assert isinstance(error, SpecError)
    assert error.bare == "a clip of 3 x 6 x 6 tokens does not divide into 4 x 2 x 2 cells"
    assert error.paths == ("input.video.frames", "input.video.tubelet", "backbone.patch_size")
    assert list(CubicPuzzles.check(CubicPuzzles.Hyper(), setup._replace(sizes=(8, 24, 24)))) == []


def test_the_recipe_has_the_papers_pieces() -> None:
    """Of 128 frames of 224 pixels: cells of 32 frames and 112 pixels, pieces of 16 and 80."""
    spec = read("k400/cubic_puzzles")
    hyper, whole = spec.hyper, (spec.input.video.frames, spec.backbone.image_size)
    assert whole == (4 * 32, 2 * 112)
    assert (hyper.puzzles, hyper.colors) == ("both", False)
    sizes, backbone = (128, 224, 224), VIT.model_copy(update={"patch_size": 16, "image_size": 224})
    trunk = encoder.build(backbone, shape=InputShape(3, sizes, (2,)))
    method = CubicPuzzles(hyper, {"video": trunk}, TrainInfo(6, 3, 10, 2, sizes=sizes))
    cells = torch.zeros(1, 4, 3, dtype=torch.int64)
    cut = method._cut(torch.zeros(1, 1, *sizes), cells, torch.zeros(1, 12))
    assert cut.shape == (1, 4, 1, 16, 80, 80)

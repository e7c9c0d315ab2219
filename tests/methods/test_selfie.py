"""Selfie by another route: piece by piece and gap by gap, on parts of the objective."""

import pytest
import torch
from precision import double_precision

from selfsup.method import load
from selfsup.parts.patch import patchify, unpatchify
from selfsup.sections import Setup
from selfsup.spec import read


def test_each_gap_is_filled_from_the_missing_pieces(setting) -> None:
    method, batch = setting("selfie", samples=3, double=True)
    view = batch.views[0].value
    images = unpatchify(view.value, grid=view.grid, patch=4)
    losses = []
    for image, draws in zip(images, batch.draws, strict=True):
        order = draws.argsort().tolist()
        seen, missing = order[:9], order[9:]  # int(16 * 0.6) stay
        places = {n: (n // 4, n % 4) for n in range(16)}
        cut = [image[None, :, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8] for row, column in places.values()]
        embedded = [method.embed(method.backbone.pooled(patchify(piece, 4)))[0] for piece in cut]
        position = {n: method.pool.rows[row] + method.pool.columns[column] for n, (row, column) in places.items()}
        read_in = torch.stack([method.pool.start[0, 0], *(embedded[n] + position[n] for n in seen)])
        summary = method.pool.norm(method.pool.blocks(read_in[None])[0, 0])
        for gap in missing:
            scores = torch.stack([(summary + position[gap]) @ embedded[other] for other in missing])
            losses.append(scores.logsumexp(0) - scores[missing.index(gap)])
    with double_precision():
        expected = torch.stack(losses).mean()
        loss = method(batch).loss
        torch.testing.assert_close(loss, expected, rtol=1e-9, atol=0)
    weights = list(method.parameters())
    trained = [number for number, weight in enumerate(weights) if weight.requires_grad]
    slopes = [
        torch.autograd.grad(value, [weights[n] for n in trained], retain_graph=True) for value in (loss, expected)
    ]
    torch.testing.assert_close(slopes[0], slopes[1], rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"piece": 30}, "images of 224 pixels do not divide into pieces of 30"),
        ({"mask_ratio": 0.01}, "of 49 pieces 1 are missing; some must stay, and two or more go"),
        ({"image": 60, "piece": 12}, "hyper.image of 60 pixels does not divide into patches of 8"),
    ],
)
def test_pieces_that_do_not_fit_are_refused(knobs: dict[str, float], message: str) -> None:
    spec, selfie = read("photos/mae"), load("selfie")
    setup = Setup(spec.backbone, spec.train, 1, (48, 48))
    assert message in str(next(selfie.check(selfie.Hyper(**knobs), setup)))

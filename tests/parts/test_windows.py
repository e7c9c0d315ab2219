"""Windows of attention against timm's Swin v2 of the authors that Audio-MAE took it from, and what they reach."""

import pytest
import torch
from small import shake
from timm_windows import theirs_of
from torch import Tensor, nn

from selfsup.parts.windows import WindowBlock, window_blocks


@pytest.mark.parametrize("shift", [0, 2])
@pytest.mark.parametrize("grid", [(16, 8), (8, 2), (4, 8)])
def test_a_block_is_timms_in_value_and_gradient(grid: tuple[int, int], shift: int) -> None:
    torch.manual_seed(0)
    ours = WindowBlock(grid, width=32, heads=4, window=4, shift=shift)
    shake(ours)
    theirs, tokens = theirs_of(ours, 4), torch.randn(2, grid[0] * grid[1], 32)
    value, expected = ours(tokens), theirs(tokens.view(2, *grid, 32)).flatten(1, 2)
    torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-5)
    weight = torch.randn_like(value)
    (value * weight).sum().backward()
    (expected * weight).sum().backward()
    for ours_part, theirs_part in (
        (ours.qkv, theirs.attn.qkv),
        (ours.bias, theirs.attn.meta_mlp),
        (ours.mlp, theirs.mlp),
    ):
        for own, other in zip(ours_part.parameters(), theirs_part.parameters(), strict=True):
            torch.testing.assert_close(own.grad, other.grad, rtol=1e-3, atol=1e-4)
    by_logarithm = -theirs.attn.logit_scale.grad / ours.temperature
    torch.testing.assert_close(ours.temperature.grad, by_logarithm, rtol=1e-3, atol=1e-4)


def reached(blocks: nn.Module, tokens: Tensor, token: int) -> list[int]:
    """Return the tokens whose values a token's changes."""
    moved = tokens.clone()
    moved[:, token] += 1
    return (blocks(tokens) != blocks(moved)).any(dim=2)[0].nonzero()[:, 0].tolist()


@pytest.mark.parametrize(
    ("grid", "depth", "token", "expected"),
    [
        ((8,), 1, 3, [0, 1, 2, 3]),
        ((8,), 2, 3, [0, 1, 2, 3, 4, 5]),  # then windows begin at 2, and 0 and 1 stand alone
        ((8, 2), 1, 0, list(range(8))),
        ((4, 4, 4), 2, 63, list(range(64))),
        ((8, 2, 2), 2, 0, list(range(24))),
    ],
)
def test_a_token_is_seen_within_its_windows_alone(
    grid: tuple[int, ...], depth: int, token: int, expected: list[int]
) -> None:
    torch.manual_seed(0)
    blocks = window_blocks(grid, width=16, depth=depth, heads=2, window=4)
    for block in blocks:
        shake(block)
    number = torch.Size(grid).numel()
    assert reached(blocks, torch.randn(1, number, 16), token) == expected

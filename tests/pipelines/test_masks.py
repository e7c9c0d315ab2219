import pytest
import torch

from selfsup.pipelines.masks import random_mask


def test_a_mask_by_hand():
    mask = random_mask(torch.tensor([[0.3, 0.1, 0.4, 0.2], [0.9, 0.8, 0.0, 0.7]]), 0.5)
    assert mask.keep.tolist() == [[1, 3], [2, 3]]
    assert mask.hide.tolist() == [[0, 2], [1, 0]]
    assert mask.restore.tolist() == [[2, 0, 3, 1], [3, 2, 0, 1]]
    assert mask.removed.tolist() == [[True, False, True, False], [True, True, False, False]]


def test_restore_puts_kept_and_removed_tokens_back():
    torch.manual_seed(0)
    tokens = torch.randn(5, 49)
    mask = random_mask(torch.rand(5, 49), 0.75)
    kept = tokens.gather(1, mask.keep)
    assert kept.shape == (5, 12)  # int(49 / 4)
    placeholder = torch.full((5, 37), torch.inf)
    back = torch.cat([kept, placeholder], dim=1).gather(1, mask.restore)
    torch.testing.assert_close(back, tokens.masked_fill(mask.removed, torch.inf), rtol=0, atol=0)


def test_every_token_is_removed_equally_often():
    torch.manual_seed(0)
    removed = random_mask(torch.rand(8000, 16), 0.75).removed.double().mean(0)
    assert (removed - 0.75).abs().max() < 4 * (0.75 * 0.25 / 8000) ** 0.5


def test_equal_noise_keeps_the_first_tokens():
    assert random_mask(torch.zeros(1, 64), 0.75).keep.tolist() == [list(range(16))]


@pytest.mark.parametrize("ratio", [0.0, 0.99])
def test_a_mask_that_keeps_all_or_nothing_is_refused(ratio):
    with pytest.raises(AssertionError, match="of 4 tokens"):
        random_mask(torch.rand(1, 4), ratio)

"""UNITER against its own words, sample by sample, with padding cut off; its transport against an exact solver."""

import numpy as np
import pytest
import torch
from loops.authors import same_gradients
from loops.joint import UNITERS, embedded, features, padded, uniter_loss, uniter_parts
from precision import double_precision
from scipy.optimize import linprog
from small import shake, without

from selfsup.method import load
from selfsup.parts import transport
from selfsup.spec import read

UNITER = load("uniter")


@pytest.mark.parametrize("weight", [0.0, 0.1])
def test_value_and_gradient_are_those_of_samples_without_padding(setting, weight: float) -> None:
    method, batch = setting("uniter", double=True, transport=weight)
    shake(method)
    parts, batch = uniter_parts(method), padded(batch)
    with double_precision():
        ours, theirs = method(batch).loss, uniter_loss(parts, batch, weight)
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=0)
    ours.backward()
    theirs.backward()
    for name, weight in method.named_parameters():
        if weight.requires_grad and name in ("hidden", "offset"):
            torch.testing.assert_close(weight.grad, parts[name].value.grad, rtol=1e-5, atol=1e-9)
    same_gradients(method, parts, UNITERS)


def test_pairs_are_ranked_by_the_logits_that_are_learned(setting) -> None:
    method, batch = setting("uniter", double=True)
    shake(method)
    parts, (image, text) = uniter_parts(method), padded(batch).views
    with double_precision(), torch.no_grad():
        ours = method.matched(image.value, text.value)
        for row, patches in enumerate(image.value.value):
            numbers = text.value.value[row][text.value.valid[row], 0].tolist()
            other, own = parts["match"](features(parts, patches, embedded(parts["words"], numbers), [])[0])
            torch.testing.assert_close(ours[row], own - other)


def test_samples_without_captions_tell_patches_alone(setting) -> None:
    method, batch = setting("uniter", double=True)
    shake(method)
    batch = without(padded(batch), [2, 3, 6])
    with double_precision():
        torch.testing.assert_close(method(batch).loss, uniter_loss(uniter_parts(method), batch, 0.1), rtol=1e-6, atol=0)
    method(batch).loss.backward()
    assert all(weight.grad.isfinite().all() for weight in method.parameters() if weight.requires_grad)
    none = method(without(batch, range(8)))
    assert [none.log[name].item() for name in ("words", "pairs", "moved", "matched")] == [0.0] * 4


def test_plans_are_those_of_linear_programming() -> None:
    """Exact transport of three words, of four that there are, to five patches, by scipy."""
    x, y = torch.randn(2, 4, 8, generator=torch.Generator().manual_seed(0)), torch.randn(2, 5, 8)
    valid = torch.tensor([[True, True, True, False]] * 2)
    moved = transport.distance(x, y, valid)
    for row in range(2):
        cost = 1 - torch.cosine_similarity(x[row, :3, None], y[row, None], dim=2).numpy()
        sums = [np.kron(np.eye(3), np.ones(5)), np.kron(np.ones(3), np.eye(5))]
        exact = linprog(cost.ravel(), A_eq=np.concatenate(sums), b_eq=[1 / 3] * 3 + [1 / 5] * 5)
        assert moved[row].item() == pytest.approx(exact.fun, rel=2e-2)
    plan = transport.plan(torch.rand(2, 4, 5), valid)
    torch.testing.assert_close(plan.sum(2), torch.tensor([[1 / 3, 1 / 3, 1 / 3, 0]] * 2), rtol=1e-5, atol=1e-6)


def test_of_masked_words_most_are_a_token_some_any_word_and_neither_begin_nor_end(setting) -> None:
    method, batch = setting("uniter", word_ratio=0.8)
    seen = []
    method.words.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].value[..., 0]))
    batch = padded(batch)
    method(batch)
    changed, text = seen[0], batch.views[1]
    numbers, place = text.value.value[..., 0], torch.arange(8)
    inside = (place > 0) & (place < text.value.valid.sum(1, keepdim=True) - 1) & text.mask.removed
    token = method.words.vocabulary
    assert changed[~inside].equal(numbers[~inside])
    assert inside.any()
    for row in range(8):
        for order, at in enumerate(text.mask.hide[row].tolist()):
            if inside[row, at]:
                assert (changed[row, at] == token) == (order < round(0.8 * text.mask.hide.shape[1]))


def test_the_recipe_has_the_settings_of_the_authors() -> None:
    spec = read("yfcc15m/uniter")
    optim, hyper = spec.optim, spec.hyper
    assert (optim.lr, optim.betas, optim.weight_decay, optim.clip_norm) == (5e-5, (0.9, 0.98), 0.01, 5.0)
    assert (optim.warmup.steps, spec.train.duration.steps) == (10_000, 200_000)
    assert (hyper.mask_ratio, hyper.word_ratio, hyper.negatives, hyper.transport) == (0.15, 0.15, 0.5, 0.1)
    assert (hyper.word_weight, hyper.match_weight, hyper.patch_weight) == (2, 2, 1)
    assert spec.input.text.length == 60 + 2

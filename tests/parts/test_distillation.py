import math
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from lightly.loss import IBOTPatchLoss, KoLeoLoss, NegativeCosineSimilarity

from selfsup.masks import BoolMask
from selfsup.parts.distillation import (
    centered,
    cosine_error,
    covered,
    crossed,
    gram_error,
    koleo,
    masked_entropy,
    me_max,
    recenter,
    recenter_by_sums,
    teacher_temperature_by_epoch,
)
from selfsup.parts.tokens import at


def test_the_cosine_error_is_two_and_twice_lightlys() -> None:
    student, target = torch.randn(9, 12, requires_grad=True), torch.randn(9, 12)
    ours, theirs = cosine_error(student, target), 2 + 2 * NegativeCosineSimilarity()(student, target)
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(torch.autograd.grad(ours, student), torch.autograd.grad(theirs, student))


def test_the_cosine_error_is_the_distance_of_unit_vectors() -> None:
    student, target = torch.randn(5, 3, dtype=torch.float64), torch.randn(5, 3, dtype=torch.float64)
    apart = [sum((s / s.norm() - t / t.norm()) ** 2) for s, t in zip(student, target, strict=True)]
    torch.testing.assert_close(cosine_error(student, target).double(), sum(apart) / 5, rtol=1e-5, atol=1e-6)


def test_the_patch_loss_and_its_center_are_lightlys() -> None:
    """One view has no covered tokens."""
    torch.manual_seed(0)
    cover, center = drawn([0.0, 0.5, 0.1, 0.4, 0.5], 16), torch.zeros(6)
    theirs = IBOTPatchLoss(output_dim=6, teacher_temp=0.05, student_temp=0.1)
    mask, places, weight = covered([cover])
    for _ in range(3):
        teacher, student = torch.randn(5, 16, 6), torch.randn(5, 16, 6, requires_grad=True)
        expected = theirs(teacher[mask], student[mask], mask.view(5, 4, 4))
        targets = centered(at(teacher, places), center, temperature=torch.tensor(0.05))
        loss = masked_entropy(targets, at(student, places), weight, temperature=0.1)
        torch.testing.assert_close(loss, expected)
        torch.testing.assert_close(torch.autograd.grad(loss, student), torch.autograd.grad(expected, student))
        recenter(center, teacher[mask], momentum=0.9)
        torch.testing.assert_close(center, theirs.center.value[0])


def test_a_center_of_sums_is_that_of_their_rows() -> None:
    center, rows = torch.randn(3), torch.randn(7, 3)
    expected = 0.9 * center + 0.1 * sum(rows) / 7
    sums, number = torch.stack([rows[:2].sum(dim=0), rows[2:].sum(dim=0)]), torch.tensor([2, 5])
    recenter_by_sums(center, sums, number, momentum=0.9)
    torch.testing.assert_close(center, expected)
    recenter_by_sums(center, torch.zeros(1, 3), torch.tensor([0]), momentum=0.9)
    torch.testing.assert_close(center, expected)


def test_gram_matrices_are_compared_pair_by_pair_with_the_gradient_by_hand() -> None:
    """d/dx_i is 4 / (B N^2) sum_j (s_ij - t_ij) u_j, less its part along u_i, divided by the length of x_i."""
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 5, 3, requires_grad=True), torch.randn(2, 5, 4)
    total, expected = 0.0, torch.zeros(2, 5, 3)
    for image in range(2):
        own, other = student[image].detach(), teacher[image]
        unit = own / own.square().sum(dim=1, keepdim=True).sqrt()
        for i in range(5):
            for j in range(5):
                now = (unit[i] @ unit[j]).item()
                before = (other[i] @ other[j] / (other[i].norm() * other[j].norm())).item()
                total += (now - before) ** 2 / (2 * 25)
                expected[image, i] += 4 / (2 * 25) * (now - before) * (unit[j] - now * unit[i]) / own[i].norm()
    error = gram_error(student, teacher)
    assert error.item() == pytest.approx(total, rel=1e-5)
    torch.testing.assert_close(torch.autograd.grad(error, student)[0], expected, rtol=1e-4, atol=1e-6)


def test_covered_tokens_of_a_view_count_one_in_all() -> None:
    torch.manual_seed(0)
    covers = [drawn([0.0, 0.3, 0.6], 9), drawn([0.9, 0.1, 0.5], 9)]
    where, places, weight = covered(covers)
    assert where.equal(torch.cat([cover.where for cover in covers]))
    assert where.flatten().nonzero()[:, 0].equal(places)
    views = places // 9
    assert views.unique().tolist() == [1, 2, 3, 4, 5]
    torch.testing.assert_close(weight, 1 / 6 / where.sum(1)[views])


def test_without_covered_tokens_one_counts_nothing() -> None:
    where, places, weight = covered([drawn([0.0, 0.0], 9)])
    assert not where.any()
    assert (len(places), weight.tolist()) == (1, [0.0])


class Warmup(NamedTuple):
    teacher_start: float = 0.04
    teacher_temperature: float = 0.07
    teacher_warmup: float = 0.4


def test_a_teacher_warms_up_by_epochs() -> None:
    """4 of 10 epochs, of 3 steps each: 0.04, 0.05, 0.06, 0.07, from the first to the last."""
    found = [teacher_temperature_by_epoch(step, Warmup(), steps=30, steps_per_epoch=3) for step in range(30)]
    assert found == pytest.approx([0.04] * 3 + [0.05] * 3 + [0.06] * 3 + [0.07] * 21)


def test_a_warm_up_of_less_than_two_epochs_is_a_line() -> None:
    found = [teacher_temperature_by_epoch(step, Warmup(), steps=10, steps_per_epoch=20) for step in range(6)]
    assert found == pytest.approx([0.04, 0.0475, 0.055, 0.0625, 0.07, 0.07])
    assert teacher_temperature_by_epoch(0, Warmup(teacher_warmup=0.0), steps=10, steps_per_epoch=2) == 0.07


def drawn(shares: list[float], tokens: int) -> BoolMask:
    where = torch.rand(len(shares), tokens) < torch.tensor(shares)[:, None]
    return BoolMask(where, where.sum(dim=1))


def test_koleo_is_lightlys_in_each_group() -> None:
    z = torch.randn(12, 5, requires_grad=True)
    for split in (1, 3):
        ours = koleo(z, split=split)
        theirs = torch.stack([KoLeoLoss()(z[start::split]) for start in range(split)]).mean()
        torch.testing.assert_close(ours, theirs)
        torch.testing.assert_close(torch.autograd.grad(ours, z), torch.autograd.grad(theirs, z))
    with pytest.raises(AssertionError, match="12 samples do not divide into 5 groups"):
        koleo(z, split=5)


def test_koleo_stands_twins_and_a_sample_alone() -> None:
    for z, split in ((torch.ones(4, 3), 1), (torch.randn(4, 3), 4)):
        z.requires_grad_()
        loss = koleo(z, split=split)
        assert torch.autograd.grad(loss, z)[0].isfinite().all()
        assert loss.isfinite()


def test_the_mean_entropy_is_zero_where_all_prototypes_are_used() -> None:
    one_hot = torch.eye(4).repeat(3, 1)
    torch.testing.assert_close(me_max(one_hot), torch.tensor(0.0), atol=1e-6, rtol=0)
    torch.testing.assert_close(me_max(one_hot[:1].repeat(5, 1)), torch.tensor(math.log(4)))


def test_crossed_is_half_the_squared_distance_of_pairs_of_views() -> None:
    """SimDINO's first term: all pairs of one of two targets and another view."""
    generator = torch.Generator().manual_seed(0)
    students, targets = (F.normalize(torch.randn(v, 6, 5, generator=generator), dim=2) for v in (4, 2))
    students.requires_grad_()
    pairs = [(t, s) for t in range(2) for s in range(4) if s != t]
    expected = sum((students[s] - targets[t]).square().sum(1).mean() / 2 for t, s in pairs) / 6
    loss = crossed(students, targets)
    torch.testing.assert_close(loss, expected)
    [ours], [theirs] = torch.autograd.grad(loss, students), torch.autograd.grad(expected, students)
    for view in range(4):  # along a unit vector itself, distance and cosine differ
        flat = students[view].detach()
        across = lambda g, flat=flat: g - (g * flat).sum(1, keepdim=True) * flat  # noqa: E731
        torch.testing.assert_close(across(ours[view]), across(theirs[view]), rtol=1e-4, atol=1e-6)

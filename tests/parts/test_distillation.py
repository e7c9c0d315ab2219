import torch
from lightly.loss import NegativeCosineSimilarity

from selfsup.parts.distillation import cosine_error


def test_the_cosine_error_is_two_and_twice_lightlys() -> None:
    student, target = torch.randn(9, 12, requires_grad=True), torch.randn(9, 12)
    ours, theirs = cosine_error(student, target), 2 + 2 * NegativeCosineSimilarity()(student, target)
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(torch.autograd.grad(ours, student), torch.autograd.grad(theirs, student))


def test_the_cosine_error_is_the_distance_of_unit_vectors() -> None:
    student, target = torch.randn(5, 3, dtype=torch.float64), torch.randn(5, 3, dtype=torch.float64)
    apart = [sum((s / s.norm() - t / t.norm()) ** 2) for s, t in zip(student, target, strict=True)]
    torch.testing.assert_close(cosine_error(student, target).double(), sum(apart) / 5, rtol=1e-5, atol=1e-6)

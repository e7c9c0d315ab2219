"""SimDINO: its loss by determinants of NumPy and distances of pairs of crops; what moves when; what evaluation gets."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from selfsup.parts.schedules import cosine


def features(head, encoder, views):
    return [F.normalize(head(encoder.pooled(view.value)), dim=1).detach().double() for view in views]


def rate(z: torch.Tensor, distortion: float) -> float:
    number, dim = z.shape
    log = np.linalg.slogdet(np.eye(dim) + dim / (number * distortion) * (z.T @ z).numpy())[1]
    return (dim + number) / (dim * number) * log / 2


@pytest.mark.parametrize("kind", ["vit", "narrow cnn"])
def test_the_loss_is_of_pairs_of_crops_and_determinants(kind: str, setting, moved) -> None:
    method, batch = setting("simdino", kind, expansion=2.0, distortion=0.2)
    moved(method.teacher, method.teacher_head)
    method.eval()
    students = features(method.head, method.backbone, batch.views)
    targets = features(method.teacher_head, method.teacher, batch.views[:2])
    pairs = [(t, s) for t in range(2) for s in range(4) if s != t]
    error = sum((students[s] - targets[t]).square().sum(1).mean().item() / 2 for t, s in pairs) / len(pairs)
    volume = np.mean([rate((student + target) / 2, 0.2) for student, target in zip(students, targets, strict=False)])
    out = method(batch)
    assert out.log["error"].item() == pytest.approx(error, rel=1e-4)
    assert out.log["rate"].item() == pytest.approx(volume, rel=1e-4)
    assert out.loss.item() == pytest.approx(error - 2 * volume, rel=1e-4, abs=1e-5)


def test_the_teacher_follows_and_is_what_evaluation_gets(setting) -> None:
    method, batch = setting("simdino", momentum=0.9)
    optimizer = torch.optim.SGD(method.parameters(), lr=1e-2)
    expected = method.teacher_head[0].weight.clone()
    for step in range(3):
        method(batch).loss.backward()
        optimizer.step()
        method.after_step(step / 3, {})
        expected = torch.lerp(method.head[0].weight.detach(), expected, cosine(step / 3, 0.9, 1.0))
    torch.testing.assert_close(method.teacher_head[0].weight, expected)
    assert method.encoder("image") is method.teacher


def test_a_collapse_costs_more_than_agreement_gains(setting) -> None:
    """Features that are all the same agree in full; the rate of those that differ is higher."""
    method, batch = setting("simdino")
    spread = method(batch).log["rate"]
    with torch.no_grad():
        for head in (method.head, method.teacher_head):
            head[-1].weight.zero_()
            head[-1].bias.fill_(1.0)
    out = method(batch)
    assert out.log["error"].item() == pytest.approx(0, abs=1e-6)
    assert out.log["rate"] < spread

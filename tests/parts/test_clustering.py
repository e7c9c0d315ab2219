"""Clusters against the papers' equations, in loops and in float64."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from selfsup.parts import clustering
from selfsup.parts.clustering import balanced_labels, cosines, drawn, labelled, spherical_kmeans, swapped, usage

Array = NDArray[np.float64]


def softmax(scores: Array) -> Array:
    exp = np.exp(scores - scores.max(-1, keepdims=True))
    return exp / exp.sum(-1, keepdims=True)


def unit(x: Array) -> Array:
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def test_cosines_are_of_unit_embeddings_with_prototypes_as_they_are() -> None:
    z, prototypes = torch.randn(2, 5, 3), torch.randn(4, 3)
    expected = [[[row @ one / row.norm() for one in prototypes] for row in view] for view in z]
    torch.testing.assert_close(cosines(z, prototypes), torch.tensor(expected))


def test_each_view_tells_the_codes_of_other_large_ones() -> None:
    """SwAV, eq. 1, 2 and 6: l(z_v, q_a) over a in {1, 2} and all v but a, divided by their number."""
    torch.manual_seed(0)
    scores, codes = torch.randn(4, 5, 3), torch.rand(2, 5, 3)
    p, terms = softmax(scores.double().numpy() / 0.3), []
    for a in range(2):
        for v in range(4):
            if v != a:
                terms.append(np.mean([-(codes[a, n].numpy() * np.log(p[v, n])).sum() for n in range(5)]))
    assert len(terms) == 6
    assert swapped(scores, codes, temperature=0.3).item() == pytest.approx(np.mean(terms), rel=1e-5)


def test_labelled_is_the_mean_over_views_and_samples() -> None:
    torch.manual_seed(0)
    scores, label = torch.randn(3, 5, 4), torch.tensor([0, 3, 1, 1, 2])
    p = softmax(scores.double().numpy() / 0.5)
    expected = np.mean([[-math.log(p[v, n, label[n]]) for n in range(5)] for v in range(3)])
    found = labelled(scores, label.expand(3, 5), temperature=0.5)
    assert found.item() == pytest.approx(expected, rel=1e-5)


def test_usage_tells_collapse_from_indecision() -> None:
    spread, one, undecided = torch.eye(4), torch.eye(4)[[2, 2, 2, 2]], torch.full((4, 4), 0.25)
    for p, entropy, mean_entropy in [(spread, 0, math.log(4)), (one, 0, 0), (undecided, math.log(4), math.log(4))]:
        found = usage(p)
        assert found["entropy"].item() == pytest.approx(entropy)
        assert found["mean_entropy"].item() == pytest.approx(mean_entropy)


def kmeans(rows: Array, centroids: Array, iterations: int) -> tuple[Array, list[int]]:
    for _ in range(iterations):
        nearest = [int(np.argmax([row @ one for one in centroids])) for row in rows]
        for k in range(len(centroids)):
            members = [row for row, cluster in zip(rows, nearest, strict=True) if cluster == k]
            if members:
                centroids = np.concatenate([centroids[:k], unit(np.sum(members, 0)[None]), centroids[k + 1 :]])
    return centroids, [int(np.argmax([row @ one for one in centroids])) for row in rows]


@pytest.mark.parametrize("iterations", [0, 1, 4])
def test_kmeans_is_worked_out_by_hand(iterations: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clustering, "CHUNK", 7)
    rng = np.random.default_rng(0)
    rows = unit(rng.normal(size=(40, 3)))
    start = np.concatenate([rows[:4], rows[:1]])  # of two that are equal the first is taken: the last stays empty
    expected, nearest = kmeans(rows, start, iterations)
    centroids, labels = spherical_kmeans(torch.tensor(rows), torch.tensor(start), iterations=iterations)
    torch.testing.assert_close(centroids, torch.tensor(expected))
    assert labels.tolist() == nearest


def test_a_cluster_that_nobody_is_in_stays() -> None:
    rows, away = F.normalize(torch.rand(10, 3), dim=1), -torch.ones(1, 3) / math.sqrt(3)
    centroids, labels = spherical_kmeans(rows, torch.cat([rows[:2], away]), iterations=3)
    assert centroids[2].equal(away[0])
    assert 2 not in labels.tolist()


def test_kmeans_finds_clusters_that_are_there() -> None:
    torch.manual_seed(0)
    truth = torch.arange(60) % 3
    rows = F.normalize(torch.eye(5)[truth] + 0.05 * torch.randn(60, 5), dim=1)
    _, labels = spherical_kmeans(rows, rows[[0, 1, 2]], iterations=5)
    assert labels.equal(truth)


def test_drawn_rows_differ() -> None:
    rows = torch.arange(10.0)[:, None]
    assert drawn(rows, 4).shape == (4, 1)
    assert sorted(drawn(rows, 10).flatten().tolist()) == rows.flatten().tolist()


def balanced(scores: Array, sharpness: float) -> tuple[Array, int]:
    """SeLa, eq. 6 to 8: diag(r) P^lambda diag(c), whose rows and columns are brought to 1 / K and 1 / N by turns.

    Every tenth round, beginning with the first, may be the last: where the sum of |c / new c - 1| is below 0.1.
    """
    power = softmax(scores).T ** sharpness  # K x N
    c, error, rounds = np.ones(len(scores)) / len(scores), math.inf, 0
    while error >= 0.1:
        r = 1 / len(power) / (power @ c)
        after = 1 / len(scores) / (power.T @ r)
        if rounds % 10 == 0:
            error = np.abs(c / after - 1).sum()
        c, rounds = after, rounds + 1
    return (r[:, None] * power * c).T, rounds


def classifier(samples: int, clusters: int, scale: float, bias: float) -> tuple[Array, Array, Array]:
    rng = np.random.default_rng(0)
    rows, weight = rng.normal(size=(samples, 4)), scale * rng.normal(size=(clusters, 4))
    return rows, weight, bias * rng.normal(size=clusters)


@pytest.mark.parametrize(("scale", "least", "most"), [(1e-4, 1, 1), (0.1, 11, 50), (1.0, 100, 200), (2.0, 201, 1000)])
def test_balanced_labels_are_those_of_sinkhorn_and_knopp(scale: float, least: int, most: int) -> None:
    """The surer the classifier is, the more rounds they take."""
    rows, weight, bias = classifier(100, 5, scale, scale / 2)
    plan, rounds = balanced(rows @ weight.T + bias, 8.0)
    arguments = (torch.tensor(value) for value in (rows, weight, bias))
    found = balanced_labels(*arguments, sharpness=8.0, iterations=10000)
    assert found.label.tolist() == plan.argmax(1).tolist()
    assert found.rounds == rounds
    assert least <= rounds <= most
    assert found.error < 0.1


def test_rounds_end_at_their_number_and_tell_what_is_left() -> None:
    rows, weight, bias = classifier(100, 5, 2.0, 1.0)
    arguments = [torch.tensor(value) for value in (rows, weight, bias)]
    found = balanced_labels(*arguments, sharpness=8.0, iterations=30)
    power = softmax(rows @ weight.T + bias) ** 8.0
    c = np.ones(100)
    for _ in range(21):
        before, c = c, 1 / (power @ (1 / (c @ power)))
    assert found.rounds == 21
    assert found.error.item() == pytest.approx(np.abs(before / c * 20 - 1).sum(), rel=1e-9)
    assert found.error > 0.1


def test_a_classifier_that_says_one_label_only_is_balanced_nevertheless() -> None:
    """Its p to the power of lambda is 0 in fp32, and in fp64, but for that label."""
    torch.manual_seed(0)
    rows, weight, bias = torch.randn(80, 6), 0.5 * torch.randn(4, 6), torch.tensor([100.0, 0.0, 0.0, 0.0])
    label, _, error = balanced_labels(rows, weight, bias, sharpness=25.0, iterations=10000)
    assert label.bincount(minlength=4).tolist() == pytest.approx([20] * 4, abs=3)
    assert error < 0.1


def test_rows_without_a_number_end_at_once() -> None:
    rows = torch.full((8, 3), math.nan)
    assert balanced_labels(rows, torch.randn(2, 3), torch.zeros(2), sharpness=25.0, iterations=10000).rounds == 1

"""DeepCluster: what it clusters, when, and what it is taught by that."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from selfsup.method import TrainInfo, load
from selfsup.parts.clustering import spherical_kmeans
from selfsup.parts.tokens import joined


def test_the_loss_is_of_all_crops_and_all_heads(setting) -> None:
    method, batch = setting("deepcluster", temperature=0.2)
    pairs = [[view.value for view in batch.views[start : start + 2]] for start in (0, 2)]
    z = [method.backbone.pooled(joined(pair)) for pair in pairs]
    z = F.normalize(method.projector(torch.cat(z)), dim=1).view(4, 8, -1)
    logs = []
    for head in range(3):
        for view in range(4):
            for row, sample in zip(z[view], batch.sample.tolist(), strict=True):
                logits = torch.stack([row @ centroid for centroid in method.centroids[head]]) / 0.2
                logs.append(logits.logsumexp(0) - logits[method.labels[head, sample]])
    torch.testing.assert_close(method(batch).loss, torch.stack(logs).mean())


def test_an_epoch_ends_with_clusters_of_what_was_seen_in_it(setting) -> None:
    """Epochs of two steps: heads by turns cluster the first and the second large crop, each from a start of its own."""
    method, batch = setting("deepcluster", iterations=2)
    before = method.labels.clone()
    first, second = (F.normalize(torch.randn(8, 128), dim=1) for _ in range(2))
    late = torch.randn(4, 128)
    method.after_step(0.0, {"sample": batch.sample, "first": 3 * first, "second": second})
    assert method.labels.equal(before)
    torch.manual_seed(5)
    method.after_step(0.1, {"sample": torch.tensor([6, 1, 0, 3]), "first": late, "second": late})
    for rows in (first, second):
        rows[[6, 1, 0, 3]] = F.normalize(late, dim=1)
    torch.manual_seed(5)
    for head, rows in enumerate([first, second, first]):
        centroids, labels = spherical_kmeans(rows, rows[torch.randperm(8)[:4]], iterations=2)
        torch.testing.assert_close(method.centroids[head], centroids)
        assert method.labels[head].equal(labels)


def test_clusters_are_found_at_the_end_of_each_epoch_and_never_else(setting) -> None:
    method, batch = setting("deepcluster")
    kind, steps = type(method), 30
    method = kind(
        method.hyper,
        dict(method.encoders.items()),
        TrainInfo(num_samples=8, num_classes=3, num_steps=steps, steps_per_epoch=7),
    )
    found, aux = [], method(batch).aux
    for step in range(steps):
        method.centroids.zero_()
        method.after_step(step / steps, aux)
        if method.centroids.any():
            found.append(step + 1)
    assert found == [7, 14, 21, 28]


def test_nothing_moves_before_the_first_clusters(setting) -> None:
    method, _ = setting("deepcluster")
    begins = {method.param_options(name, weight).frozen_until for name, weight in method.named_parameters()}
    assert begins == {0.2}


def test_more_clusters_than_samples_are_refused(setting) -> None:
    with pytest.raises(AssertionError, match="9 clusters of 8 samples"):
        setting("deepcluster", clusters=9)


def test_clusters_get_purer(setting) -> None:
    """Trained on eight images in two groups that differ in brightness alone, one cluster never holds both."""
    method, batch = setting("deepcluster", clusters=2, heads=1)
    group = np.arange(8) % 2
    for view in batch.views:
        view.value.value.mul_(0.3).add_(2.0 * torch.tensor(2.0 * group - 1)[:, None, None].float())
    optimizer = torch.optim.SGD(method.parameters(), lr=0.05)
    for step in range(6):
        out = method(batch)
        optimizer.zero_grad()
        out.loss.backward()
        if step >= 2:
            optimizer.step()
        method.after_step(step / 10, out.aux)
    assert len(set(zip(group.tolist(), method.labels[0].tolist(), strict=True))) == 2


def test_the_views_are_swavs() -> None:
    kind, swav = load("deepcluster"), load("swav")
    assert kind.views(kind.Hyper()) == swav.views(swav.Hyper())

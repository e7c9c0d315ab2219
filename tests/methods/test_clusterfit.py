"""ClusterFit: its targets, and what becomes of samples without one."""

import torch
import torch.nn.functional as F
from sklearn.cluster import KMeans

from selfsup.method import load

CLUSTERFIT = load("clusterfit")


def blobs(number: int) -> tuple[torch.Tensor, torch.Tensor]:
    """-> (3 * number, 6) features around three directions, of any length; (3 * number,) the direction of each"""
    own = torch.arange(3).repeat(number)
    rows = F.one_hot(own, 6).float() + 0.1 * torch.randn(3 * number, 6)
    return rows * (1 + 5 * torch.rand(3 * number, 1)), own


def test_targets_are_the_clusters_of_scikit_learn() -> None:
    features, _ = blobs(20)
    hyper = CLUSTERFIT.Hyper(clusters=3, iterations=20)
    own = CLUSTERFIT.prepare(hyper, features, torch.arange(60), 60, seed=1)
    theirs = KMeans(3, n_init=10, random_state=0).fit(F.normalize(features, dim=1).numpy()).labels_
    pairs = {*zip(own.tolist(), theirs.tolist(), strict=True)}
    assert len(pairs) == 3  # the same clusters, by other numbers
    assert own.equal(CLUSTERFIT.prepare(hyper, features, torch.arange(60), 60, seed=1))


def test_samples_that_could_not_be_read_have_no_cluster_and_no_loss(setting) -> None:
    features, _ = blobs(2)
    hyper = CLUSTERFIT.Hyper(clusters=3, iterations=5)
    made = CLUSTERFIT.prepare(hyper, features, torch.tensor([0, 1, 2, 4, 5, 7]), 8, seed=0)
    assert (made < 0).nonzero().flatten().tolist() == [3, 6]
    method, batch = setting("clusterfit", "vit")
    method.cluster.copy_(made)
    logits = method.head(method.backbone.pooled(batch.views[0].value))
    rows = (made >= 0).nonzero().flatten()
    torch.testing.assert_close(method(batch).loss, F.cross_entropy(logits[rows], made[rows]))

"""ClusterFit: its targets, and its loss against transformers' ViT, with samples without one."""

from copy import deepcopy

import torch
import torch.nn.functional as F
from sklearn.cluster import KMeans
from small import shake
from transformers import ViTModel
from transformers_names import SMALL_VIT, compare_gradients, gradients, of_encoder

from selfsup.method import load
from selfsup.parts.patch import unpatchify

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


def test_the_loss_is_transformers_in_value_and_gradient_but_for_samples_without_a_cluster(setting) -> None:
    features, _ = blobs(2)
    hyper = CLUSTERFIT.Hyper(clusters=3, iterations=5)
    made = CLUSTERFIT.prepare(hyper, features, torch.tensor([0, 1, 2, 4, 5, 7]), 8, seed=0)
    assert (made < 0).nonzero().flatten().tolist() == [3, 6]
    method, batch = setting("clusterfit", "vit")
    method.cluster.copy_(made)
    shake(method)
    theirs, head = ViTModel(SMALL_VIT, add_pooling_layer=False), deepcopy(method.head)
    theirs.load_state_dict(of_encoder(method.state_dict()), strict=True)
    theirs.embeddings.position_embeddings.requires_grad_(False)  # as ours are
    hidden = theirs(unpatchify(batch.views[0].value.value, grid=(4, 4), patch=4)).last_hidden_state[:, 0]
    rows = [(logits, own) for logits, own in zip(head(hidden), made[batch.sample].tolist(), strict=True) if own >= 0]
    expected = torch.stack([logits.exp().sum().log() - logits[own] for logits, own in rows]).mean()
    loss = method(batch).loss
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=0)
    compare_gradients(method, theirs, loss, expected, of_encoder)
    torch.testing.assert_close(gradients(method.head), gradients(head), rtol=1e-3, atol=1e-5)

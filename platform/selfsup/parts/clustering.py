"""Clusters, and losses whose targets are clusters, in fp32 whatever precision the step has.

N: samples of this process, M: rows that all processes hold alike, V: views, K: clusters, D: channels.
Over W processes each loss is its process's share; the mean of the shares is the loss of the whole batch.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from selfsup.parts import dist
from selfsup.parts.precision import no_autocast

CHUNK = 16384  # rows that are compared with all clusters at a time
ROUNDS, TOLERANCE = 10, 0.1  # SeLa's code asks every tenth round whether labels are balanced, and how nearly


def cosines(z: Tensor, prototypes: Tensor) -> Tensor:
    """(..., D), (K, D) -> (..., K): cosines of embeddings with prototypes, which must be unit vectors."""
    with no_autocast(z):
        return F.linear(F.normalize(z.float(), dim=-1), prototypes.float())


def swapped(scores: Tensor, codes: Tensor, *, temperature: float) -> Tensor:
    """(V, N, K), (A, N, K) -> (): cross-entropy of each view with the codes of the first A views, but for its own.

    SwAV (arXiv 2006.09882), eq. 1 and 2 averaged over samples and pairs of views, for many views as in its eq. 6.
    """
    log_p = F.log_softmax(scores.float() / temperature, dim=2)
    pairs = [(code, view) for code in range(len(codes)) for view in range(len(scores)) if code != view]
    return -torch.stack([(codes[code] * log_p[view]).sum(dim=1).mean() for code, view in pairs]).mean()


def labelled(scores: Tensor, label: Tensor, *, temperature: float = 1.0) -> Tensor:
    """(..., K), (...) -> (): cross-entropy of scores with cluster labels. DeepCluster (arXiv 1807.05520), eq. 1."""
    return F.cross_entropy(scores.float().flatten(0, -2) / temperature, label.flatten())


@torch.no_grad()
def usage(p: Tensor) -> dict[str, Tensor]:
    """(N, K), rows that sum to 1 -> entropy: the mean over rows; mean_entropy: of the mean row of all processes.

    Both in nats. A mean_entropy near 0: one cluster takes everything; an entropy of ln K: no cluster is preferred.
    """
    return {
        "entropy": torch.special.entr(p).sum(1).mean(),
        "mean_entropy": torch.special.entr(dist.mean(p.mean(0))).sum(),
    }


@torch.no_grad()
def drawn(rows: Tensor, number: int) -> Tensor:
    """(M, D) -> (number, D): random rows, none twice; the first process draws for all."""
    return rows[dist.first(torch.randperm(len(rows), device=rows.device))[:number]]


@torch.no_grad()
def spherical_kmeans(rows: Tensor, start: Tensor, *, iterations: int) -> tuple[Tensor, Tensor]:
    """(M, D), (K, D), unit vectors -> (K, D), (M,): centroids of unit length, and the number of each row's nearest.

    Dhillon and Modha, "Concept decompositions for large sparse text data using clustering", 2001, as DeepCluster v2
    (arXiv 2006.09882, appendix). A cluster without rows stays where it is. Each process works on its share of the rows.
    """
    centroids, own = start, _share(rows)
    for _ in range(iterations):
        sums = torch.zeros_like(centroids)
        for part in torch.split(own, CHUNK):
            sums += F.one_hot(_nearest(part, centroids), len(centroids)).to(part.dtype).T @ part
        sums = dist.total(sums)
        centroids = torch.where(sums.any(dim=1, keepdim=True), F.normalize(sums, dim=1), centroids)
    return centroids, _whole(torch.cat([_nearest(part, centroids) for part in torch.split(own, CHUNK)]), len(rows))


class BalancedLabels(NamedTuple):
    """Labels (M,), the rounds () of balancing, and the error () that these leave, summed over all samples."""

    label: Tensor
    rounds: Tensor
    error: Tensor


@torch.no_grad()
def balanced_labels(rows: Tensor, weight: Tensor, bias: Tensor, *, sharpness: float, iterations: int) -> BalancedLabels:
    """(M, D), (K, D), (K,) -> the most probable labels under a linear classifier, each label equally often.

    SeLa (arXiv 1911.05371), eq. 6 to 8, in double precision; sharpness: its lambda. As in the authors' code, rounds end
    when the scales of samples change by less than 0.1 in sum: every tenth asks for that, which waits for the device.
    iterations: rounds at most. Each process works on its share of the rows.
    """
    scores = F.linear(_share(rows), weight, bias).double().log_softmax(dim=1).mul_(sharpness)
    for rounds in range(1, iterations + 1, ROUNDS):
        scores.sub_(dist.gather(scores.logsumexp(dim=0, keepdim=True)).logsumexp(dim=0))  # a sum of 1 for each cluster
        sample = scores.logsumexp(dim=1, keepdim=True)
        error = dist.total((sample.exp() * len(rows) / len(weight) - 1).abs().sum())
        if error.isnan() or error < TOLERANCE or rounds + ROUNDS > iterations:
            break
        for scale in _scales(scores.sub_(sample).exp(), ROUNDS - 1):
            scores.add_(scale.log())
    return BalancedLabels(_whole(scores.argmax(dim=1), len(rows)), torch.full_like(error, rounds), error)


def _scales(plan: Tensor, rounds: int) -> tuple[Tensor, Tensor]:
    """(m, K), rows that sum to 1 -> (m, 1), (K,): factors of samples and of clusters after so many rounds of balancing.

    Two products with a vector a round, where logarithms would need several passes; so few stay in double's range.
    """
    sample = plan.new_ones(len(plan))
    for _ in range(rounds):
        cluster = 1 / dist.total(sample @ plan)
        sample = 1 / (plan @ cluster)
    return sample[:, None], cluster


@torch.no_grad()
def distances(places: Tensor, words: Tensor) -> Tensor:
    """(N, D, h, w), (K, D) -> (N, h * w, K): squared distances of the features at each place from each visual word."""
    with no_autocast(places):
        features, words = places.float().flatten(2).mT, words.float()
        squares = features.square().sum(dim=2, keepdim=True) + words.square().sum(dim=1)
        return (squares - 2 * features @ words.T).clamp_min(0)


@torch.no_grad()
def bag_of_words(distance: Tensor, delta: Tensor) -> Tensor:
    """(N, P, K), () -> (N, K), rows that sum to 1: the share of each visual word, taken where it is largest.

    OBoW (arXiv 2012.11552), its targets: softly assigned, max-pooled, of unit L1 norm. delta: softness.
    """
    return F.normalize(F.softmax(-distance / delta, dim=2).amax(dim=1), p=1, dim=1)


def bag_error(features: Tensor, weights: Tensor, bag: Tensor, *, kappa: float) -> Tensor:
    """(V, N, D), (K, D), (N, K) -> (): cross-entropy of each view's prediction with its image's bag of words.

    OBoW (arXiv 2012.11552), its dynamic prediction: weights are unit vectors, features are not.
    """
    with no_autocast(features):
        log_p = F.log_softmax(kappa * features.float() @ weights.float().T, dim=2)
    return -(bag * log_p).sum(dim=2).mean()


def _nearest(rows: Tensor, centroids: Tensor) -> Tensor:
    """(n, D), (K, D) -> (n,)"""
    return (rows @ centroids.T).argmax(dim=1)


def _share(rows: Tensor) -> Tensor:
    """(M, ...) -> this process's, about M / W"""
    return rows[dist.rank() :: dist.world_size()]


def _whole(own: Tensor, number: int) -> Tensor:
    """(m,) of each process's `_share` -> (number,): of all rows, the same in all processes."""
    whole = own.new_zeros(number)
    _share(whole).copy_(own)
    return dist.total(whole)

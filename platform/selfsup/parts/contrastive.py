"""Contrastive losses, in fp32 whatever precision the step has. N: samples of this process, D: channels.

Over W processes each returns its own share; the mean of the shares is the loss of the whole batch.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from selfsup.parts import dist
from selfsup.parts.precision import no_autocast

TINY = 1e-7  # added to squared distances, as PointContrast's code does: the root of zero has no gradient


def nt_xent(a: Tensor, b: Tensor, *, temperature: float) -> Tensor:
    """(N, D), (N, D) -> (): cross-entropy of each view's partner among all other views, by cosine similarity.

    SimCLR (arXiv 2002.05709), eq. 1 averaged over the 2N views; the authors' code has twice that.
    """
    a, b = F.normalize(a.float(), dim=1), F.normalize(b.float(), dim=1)
    views, others = torch.cat([a, b]), torch.cat([dist.gather(a), dist.gather(b)])
    with no_autocast(a):
        logits = views @ others.T / temperature
    total = len(others) // 2
    own = torch.arange(len(a), device=a.device) + dist.rank() * len(a)  # where this process's samples stand in `others`
    itself, partner = torch.cat([own, own + total]), torch.cat([own + total, own])
    return F.cross_entropy(logits.scatter(1, itself[:, None], -torch.inf), partner)


def nt_xent_chance(a: Tensor) -> Tensor:
    """(N, D) -> (): `nt_xent` of embeddings that are all the same: ln(2N - 1), N over all processes."""
    return a.new_full((), math.log(2 * len(a) * dist.world_size() - 1), dtype=torch.float32)


def info_nce(query: Tensor, key: Tensor, queue: Tensor, *, temperature: float) -> Tensor:
    """(N, D), (N, D), (K, D) -> (): cross-entropy of each query's key among it and the queue, unit vectors.

    MoCo (arXiv 1911.05722), eq. 1.
    """
    query = F.normalize(query.float(), dim=1)
    with no_autocast(query):
        logits = torch.cat([(query * key).sum(1, keepdim=True), query @ queue.T], dim=1) / temperature
    return F.cross_entropy(logits, torch.zeros(len(query), dtype=torch.int64, device=query.device))


def batch_nce(query: Tensor, key: Tensor, *, temperature: float) -> Tensor:
    """(N, D), (N, D) -> (): cross-entropy of each query's own key among the keys of the batch, by cosine similarity.

    MoCo v3 (arXiv 2104.02057), algorithm 1, without its factor of twice the temperature; NNCLR (arXiv 2104.14548),
    eq. 2 with predictions as keys. Gradients flow to whichever of the two have them.
    """
    query, keys = F.normalize(query.float(), dim=1), dist.gather(F.normalize(key.float(), dim=1))
    with no_autocast(query):
        logits = query @ keys.T / temperature
    return F.cross_entropy(logits, torch.arange(len(query), device=query.device) + dist.rank() * len(query))


def paired_nce(a: Tensor, b: Tensor, *, scale: Tensor) -> Tensor:
    """(N, D), (N, D), () -> (): cross-entropy of each vector's partner among all of the other kind, averaged over both.

    CLIP (arXiv 2103.00020), figure 3. a, b: unit vectors. scale: of their cosines, one over the temperature.
    """
    every_a, every_b = dist.gather(a), dist.gather(b)
    own = torch.arange(len(a), device=a.device) + dist.rank() * len(a)
    with no_autocast(a):
        return (F.cross_entropy(scale * a @ every_b.T, own) + F.cross_entropy(scale * b @ every_a.T, own)) / 2


def paired_sigmoid(a: Tensor, b: Tensor, *, scale: Tensor, bias: Tensor) -> Tensor:
    """(N, D), (N, D), (), () -> (): whether any two are partners, by logistic regression, summed over partners.

    SigLIP (arXiv 2303.15343), algorithm 1. a, b: unit vectors. scale, bias: of their cosines.
    """
    every = dist.gather(b)
    own = torch.arange(len(a), device=a.device) + dist.rank() * len(a)
    with no_autocast(a):
        logits = scale * a @ every.T + bias
    sign = 2 * F.one_hot(own, len(every)) - 1
    return -F.logsigmoid(sign * logits).sum() / len(a)


def bank_scores(query: Tensor, key: Tensor, negatives: Tensor, *, temperature: float) -> Tensor:
    """(N, D), (N, D), (K, D) -> (N, 1 + K): the cosine of each query with its key, then with all negatives, over τ.

    key and negatives are unit vectors.
    """
    query = F.normalize(query.float(), dim=1)
    with no_autocast(query):
        return torch.cat([(query * key).sum(1, keepdim=True), query @ negatives.T], dim=1) / temperature


def entry_scores(query: Tensor, entries: Tensor, *, temperature: float) -> Tensor:
    """(N, D), (N, 1 + K, D) -> (N, 1 + K): the cosine of each query with entries of its own, over τ.

    Both are unit vectors; the first entry is the right one.
    """
    with no_autocast(query):
        return torch.einsum("nd,nkd->nk", query, entries) / temperature


def softmax_nce(scores: Tensor, own: Tensor) -> Tensor:
    """(N, 1 + K), (N, K) bool -> (): binary cross-entropy of a softmax: 1 for each query's key, 0 for its negatives.

    PIRL (arXiv 1912.01991), eq. 3 and 4: the probability h is a softmax over the key and the negatives. scores: of
    `bank_scores`. own: the negatives that are the sample itself, which are left out.
    """
    log_share = torch.cat([scores[:, :1], scores[:, 1:].masked_fill(own, -torch.inf)], dim=1).log_softmax(1)
    share = log_share[:, 1:].exp().clamp_max(1 - 1e-6)  # the logarithm of 1 - share stays finite
    return -(log_share[:, 0] + torch.log1p(-share).sum(1)).mean()


def noise_nce(scores: Tensor, even: Tensor, right: int = 1) -> Tensor:
    """(N, R + K), () -> (): noise-contrastive estimation of each query's key, with noise uniform over the memory.

    NPID (arXiv 1805.01978), section 3.2, as PIRL's code has it: the probability of one of n rows is exp(score) / Z with
    a constant Z, and h is its share beside K of noise, each of probability 1 / n. even: the score at which h is 1/2.
    right: R, the keys of a query, which come first, and of which the mean counts.
    """
    wrong = F.softplus(scores[:, right:] - even).sum(1)
    return (F.softplus(even - scores[:, :right]).mean(1) + wrong).mean()


@torch.no_grad()
def even_score(scores: Tensor, noise: int) -> Tensor:
    """(N, M) -> (): `even` of `noise_nce` for a Z of n times the mean exp(score) of a batch. noise: K.

    It is ln(Z K / n), in which n cancels: the logarithm of K times that mean, over the batch of all processes. PIRL's
    code has that of all scores, AVID's (arXiv 2004.12943) that of negatives.
    """
    own = scores.flatten().logsumexp(0) - math.log(scores.numel())
    return dist.gather(own[None]).logsumexp(0) - math.log(dist.world_size()) + math.log(noise)


def places_nce(antecedent: Tensor, places: Tensor, *, clip: float) -> tuple[Tensor, Tensor]:
    """(N, D), (N, P, D) -> (), (): each antecedent with every place of its image against the places of all others.

    AMDIM (arXiv 1906.00910), sections 3.2 and 3.3: scores are bounded softly by `clip`; their mean square before
    that is the penalty, the second result. As in its code, scores are divided by the square root of D.
    """
    every = dist.gather(places.float())
    with no_autocast(antecedent):
        raw = torch.einsum("nd,mpd->nmp", antecedent.float(), every) / math.sqrt(places.shape[2])
    scores = clip * torch.tanh(raw / clip)
    own = torch.arange(len(raw), device=raw.device) + dist.rank() * len(raw)  # where this process's stand in `every`
    at = own[:, None, None]
    positive = scores.take_along_dim(at, dim=1)[:, 0]  # (N, P)
    others = scores.scatter(1, at.expand(-1, 1, scores.shape[2]), -torch.inf).flatten(1).logsumexp(1, keepdim=True)
    return (torch.logaddexp(positive, others) - positive).mean(), raw.square().mean()


def same_source(features: Tensor, source: Tensor, *, temperature: float) -> Tensor:
    """(G, N, D), (G, N) int64 -> (): tell features of one source from the others of a sample, all of whom have several.

    Supervised contrastive learning (Khosla et al., arXiv 2004.11362, equation 2) within each of G samples, as MixedAE's
    (arXiv 2303.17152): cross-entropies averaged over the other features of a source, then over features.
    """
    with no_autocast(features):
        unit = F.normalize(features.float(), dim=2)
        itself = torch.eye(source.shape[1], dtype=torch.bool, device=source.device)
        cosines = (unit @ unit.mT / temperature).masked_fill(itself, -torch.inf)
        same = (source[:, :, None] == source[:, None]) & ~itself
        entropies = torch.where(same, -cosines.log_softmax(dim=2), 0.0)
        return (entropies.sum(dim=2) / same.sum(dim=2)).mean()


def told_apart(query: Tensor, key: Tensor, alike: Tensor, *, temperature: float) -> Tensor:
    """(N, T, D), (N, T, D), (T, T) bool -> (): cross-entropy of each right key among it and all wrong ones.

    GDT (arXiv 2003.04298), section 3: of T transformations of a sample, its keys are right whose transformation is
    alike. Averaged over these, then over queries. Both are unit vectors; keys take no gradient.
    """
    every, (samples, kinds) = dist.gather(key.detach()), query.shape[:2]
    own = torch.arange(samples, device=query.device) + dist.rank() * samples
    itself = F.one_hot(own, len(every)).bool()
    right = (itself[:, None, :, None] & alike[:, None]).flatten(2)
    with no_autocast(query):
        logits = (query.flatten(0, 1) @ every.flatten(0, 1).T / temperature).view(samples, kinds, -1)
    wrong = logits.masked_fill(right, -torch.inf).logsumexp(2, keepdim=True)
    entropies = torch.where(right, torch.logaddexp(logits, wrong) - logits, 0.0)
    return (entropies.sum(2) / right.sum(2)).mean()


def matched_nce(a: Tensor, b: Tensor, is_matched: Tensor, *, temperature: float) -> Tensor:
    """(N, D), (N, D), (N,) bool -> (): cross-entropy of each match's partner among those of all, by cosine similarity.

    PointInfoNCE of PointContrast (arXiv 2007.10985), eq. 2, averaged over the matches of the batch; zero without any.
    """
    a, b = F.normalize(a.float(), dim=1), F.normalize(b.float(), dim=1)
    every, there = dist.gather(b), dist.gather(is_matched)
    own = torch.arange(len(a), device=a.device) + dist.rank() * len(a)
    with no_autocast(a):
        logits = (a @ every.T / temperature).masked_fill(~there, -torch.inf)
    logits = torch.where(is_matched[:, None], logits, 0.0)
    return _mean_where(F.cross_entropy(logits, own, reduction="none"), is_matched)


def hardest_contrast(
    a: Tensor, b: Tensor, is_matched: Tensor, is_near: Tensor, *, pull: float, push: float
) -> tuple[Tensor, Tensor]:
    """(N, D), (N, D), (N,) bool, (N, W * N) bool -> (), (): how far matches are apart, and how near the nearest others.

    The hardest-contrastive loss of PointContrast (arXiv 2007.10985), eq. 1, as its code has it, between unit vectors:
    squared distances beyond `pull`, and squares of what distances lack to `push`, of both directions in the mean.
    is_near: matches of all W processes, by those of this one, that are no others, since they lie at the same place.
    """
    a, b = F.normalize(a.float(), dim=1), F.normalize(b.float(), dim=1)
    others = dist.gather(is_matched) & ~is_near
    apart = _mean_where(((a - b).square().sum(1) - pull).clamp_min(0), is_matched)
    near = [_nearest_other(one, dist.gather(two), others) for one, two in ((a, b), (b, a))]
    has_other = is_matched & others.any(1)
    lacking = [_mean_where((push - distance).clamp_min(0).square(), has_other) for distance in near]
    return apart, (lacking[0] + lacking[1]) / 2


def _nearest_other(rows: Tensor, every: Tensor, others: Tensor) -> Tensor:
    """(N, D), (M, D), (N, M) bool -> (N,): the distance of each unit vector to the nearest of its others."""
    with torch.no_grad(), no_autocast(rows):
        nearest = (rows @ every.T).masked_fill(~others, -torch.inf).argmax(1)
    return ((rows - every[nearest]).square().sum(1) + TINY).sqrt()


def _mean_where(values: Tensor, counts: Tensor) -> Tensor:
    """(N,), (N,) bool -> (): this process's share of the mean over all values that count; zero without any."""
    total = dist.total(counts.sum()).clamp_min(1)
    return torch.where(counts, values, 0.0).sum() * dist.world_size() / total

"""Quantizers, which turn vectors or scores into codes out of a learned list, in fp32 whatever precision the step has.

B: batch, N: tokens, M: tokens of all processes, D: channels of a code, K: codes.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfsup.parts import dist
from selfsup.parts.precision import no_autocast

RARE = 0.1  # of its even share: a code that is used less begins anew


class Quantized(NamedTuple):
    """Vectors out of a codebook. value: (B, N, D). code: (B, N) int64. z: what they are made of, detached. loss: ()."""

    value: Tensor
    code: Tensor
    z: Tensor
    loss: Tensor


class VectorQuantizer(nn.Module):
    """The nearest of K codes, each the moving average of vectors that were nearest to it.

    VQ-VAE (arXiv 1711.00937), section 3.2 and appendix A.1; the loss is the third term of eq. 3, a mean over channels.
    Gradients pass through a code to its vector. unit: whether vectors and codes are compared at length one, as in
    ViT-VQGAN (arXiv 2110.04627), section 3.2. A code that is hardly used becomes a vector of the batch, as in Jukebox
    (arXiv 2005.00341), section 3.2; so do all after the first step.
    """

    codebook: Tensor
    count: Tensor
    total: Tensor

    def __init__(self, codes: int, dim: int, *, decay: float, unit: bool) -> None:
        super().__init__()
        self.decay, self.unit = decay, unit
        self.register_buffer("codebook", F.normalize(torch.randn(codes, dim), dim=1))
        self.register_buffer("count", torch.zeros(codes))
        self.register_buffer("total", torch.zeros(codes, dim))

    def forward(self, z: Tensor) -> Quantized:
        """(B, N, D) -> Quantized"""
        z, codebook = self._compared(z.float()), self._compared(self.codebook)
        code = nearest(z, codebook)
        value = F.embedding(code, codebook)
        return Quantized(z + (value - z).detach(), code, z.detach(), F.mse_loss(z, value))

    def vectors(self, code: Tensor) -> Tensor:
        """(B, N) int64 -> (B, N, D)"""
        return F.embedding(code, self._compared(self.codebook))

    @torch.no_grad()
    def update(self, z: Tensor, code: Tensor) -> None:
        """Move the codes towards the vectors of a step. z: (B, N, D), code: (B, N) of this process."""
        z, code = dist.gather(z).flatten(0, 1), dist.gather(code).flatten()
        self.count.lerp_(numbers(code, self.count), 1 - self.decay)
        self.total.lerp_(torch.zeros_like(self.total).index_add_(0, code, z), 1 - self.decay)
        share = len(z) / len(self.count)
        spread = torch.arange(len(self.count), device=z.device) * len(z) // len(self.count)
        rare = self.count < RARE * share
        self.count.masked_fill_(rare, share)
        self.total.copy_(torch.where(rare[:, None], share * z[spread], self.total))
        self.codebook.copy_(self.total / self.count[:, None])

    @property
    def perplexity(self) -> Tensor:
        """-> (): e to the entropy of the codes' use, a moving average: their number, were all used alike."""
        return perplexity(self.count)

    def _compared(self, x: Tensor) -> Tensor:
        return F.normalize(x, dim=-1) if self.unit else x


class GumbelQuantizer(nn.Module):
    """A draw from K codes, as likely as scores say, relaxed to a mixture of all while it is learned.

    The discrete VAE of DALL-E (arXiv 2102.12092), section 2.1, by the Gumbel-softmax of Jang et al. (arXiv 1611.01144)
    and Maddison et al. (arXiv 1611.00712). The loss is the divergence of each token's distribution from the uniform
    one, in nats, a mean over tokens. temperature: (), of the relaxation: the lower, the nearer is a mixture to a code.
    """

    count: Tensor
    temperature: Tensor

    def __init__(self, codes: int, dim: int, *, decay: float, temperature: float) -> None:
        super().__init__()
        self.decay = decay
        self.codebook = nn.Parameter(torch.randn(codes, dim))
        self.register_buffer("count", torch.zeros(codes))
        self.register_buffer("temperature", torch.tensor(temperature))

    def forward(self, scores: Tensor, noise: Tensor | None = None) -> Quantized:
        """(B, N, K), (B, N, K) standard Gumbel noise -> Quantized. Without noise the likeliest code, and no loss."""
        code = scores.argmax(dim=-1)
        if noise is None:
            return Quantized(self.vectors(code), code, scores.detach(), self.temperature.new_zeros(()))
        with no_autocast(scores):
            log_p = F.log_softmax(scores.float(), dim=-1)
            mixture = F.softmax((log_p + noise) / self.temperature, dim=-1)
            divergence = (log_p.exp() * log_p).sum(dim=-1).mean() + math.log(scores.shape[-1])
            return Quantized(mixture @ self.codebook, code, scores.detach(), divergence)

    def vectors(self, code: Tensor) -> Tensor:
        """(B, N) int64 -> (B, N, D)"""
        return F.embedding(code, self.codebook)

    @torch.no_grad()
    def update(self, code: Tensor) -> None:
        """Count the likeliest codes of a step, (B, N) of this process."""
        self.count.lerp_(numbers(dist.gather(code).flatten(), self.count), 1 - self.decay)

    @property
    def perplexity(self) -> Tensor:
        """-> (): as of `VectorQuantizer`, of the likeliest codes."""
        return perplexity(self.count)


def numbers(code: Tensor, count: Tensor) -> Tensor:
    """(M,) int64, (K,) -> (K,): how often each code is there."""
    return torch.zeros_like(count).index_add_(0, code, torch.ones_like(code, dtype=count.dtype))


def perplexity(count: Tensor) -> Tensor:
    """(K,) -> (): e to the entropy of shares of a whole; 1 where nothing is counted."""
    entropy: Tensor = torch.special.entr(count / count.sum().clamp_min(1e-6)).sum()
    return entropy.exp()


@torch.no_grad()
def nearest(z: Tensor, codebook: Tensor) -> Tensor:
    """(B, N, D), (K, D) -> (B, N) int64: the code at the least distance from each vector."""
    with no_autocast(z):
        return (codebook.square().sum(dim=1) - 2 * F.linear(z, codebook)).argmin(dim=-1)

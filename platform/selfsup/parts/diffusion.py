"""Denoising diffusion of small images, each conditioned on a feature: training of a denoiser, and sampling.

Jonathan Ho et al., "Denoising Diffusion Probabilistic Models", NeurIPS 2020, arXiv 2006.11239: a linear schedule of T =
1000 variances. Samples are drawn by the deterministic steps of Jiaming Song et al., DDIM, ICLR 2021, arXiv 2010.02502,
equation 12 with σ = 0. Deviation: the denoiser predicts the image, not the noise (Ho et al., section 3.2, Tim Salimans
and Jonathan Ho, ICLR 2022, arXiv 2202.00512, section 4). What is trained for minutes so paints without detail; what
predicts noise, or v, paints noise. B: images, C: channels, S: pixels a side, D: channels of a feature.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from selfsup.parts.denoiser import Denoiser

STEPS = 1000  # of noise: T
VARIANCES = 1e-4, 0.02  # of the noise that the first and the last step add
DRAWN_IN = 25  # steps of DDIM
BATCH, RATE, CLIP = 64, 1e-3, 1.0  # training: images a step, peak learning rate of Adam, longest gradient
WARMUP = 0.05  # share of training in which the rate rises; then it falls by half a cosine to 0

Denoise = Callable[[Tensor, Tensor], Tensor]  # (B, C, S, S), (B,) -> (B, C, S, S): images, of noisy ones at these steps


def signal() -> Tensor:
    """-> (T,), float64: the share of an image's variance that is left after each step, ᾱ of Ho et al."""
    return (1 - torch.linspace(*VARIANCES, STEPS, dtype=torch.float64)).cumprod(0)


def noisy(images: Tensor, noise: Tensor, left: Tensor) -> Tensor:
    """(B, C, S, S) twice, (B,) -> (B, C, S, S): images of which these shares are left; Ho et al., equation 4"""
    kept, rest = (share.sqrt().to(images).view(-1, 1, 1, 1) for share in (left, 1 - left))
    return kept * images + rest * noise


def drawn(denoise: Denoise, noise: Tensor, *, steps: int = DRAWN_IN) -> Tensor:
    """(B, C, S, S) -> (B, C, S, S): images in [-1, 1] that are painted from noise, a function of it alone"""
    shares = signal()
    times = torch.linspace(STEPS - 1, 0, steps).round().long()
    image, left = noise, shares[times[0]]
    for time, after in zip(times, [*shares[times[1:]], torch.ones((), dtype=torch.float64)], strict=True):
        clean = denoise(image, time.expand(len(noise)).to(noise.device)).clamp(-1, 1)
        rest = (image - left.sqrt() * clean) / (1 - left).sqrt()
        image, left = after.sqrt() * clean + (1 - after).sqrt() * rest, after
    return image


def fitted(features: Tensor, images: Tensor, *, steps: int, width: int, seed: int) -> Denoiser:
    """(N, D), (N, C, S, S) in [-1, 1] -> a denoiser of such images, given their features"""
    torch.manual_seed(seed)
    network = Denoiser(features, images.shape[1], width).to(images.device)
    optimizer = torch.optim.Adam(network.parameters(), RATE)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate((step + 1) / steps))
    draw, shares = torch.Generator().manual_seed(seed), signal().to(images.device)
    for _ in range(steps):
        rows = torch.randint(len(images), (BATCH,), generator=draw).to(images.device)
        times = torch.randint(STEPS, (BATCH,), generator=draw).to(images.device)
        noise = torch.randn(BATCH, *images.shape[1:], generator=draw).to(images)
        guess = network(noisy(images[rows], noise, shares[times]), times, features[rows])
        loss = (guess - images[rows]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), CLIP)
        optimizer.step()
        schedule.step()
    return network.eval()


def rate(done: float) -> float:
    """Return the learning rate, as a share of its peak, where this share of training is done."""
    return done / WARMUP if done < WARMUP else 0.5 * (1 + math.cos(math.pi * (done - WARMUP) / (1 - WARMUP)))

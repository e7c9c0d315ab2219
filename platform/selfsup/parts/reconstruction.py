"""Losses of reconstructions, in fp32 whatever precision the step has, and what they are of.

B: batch, M: removed tokens, P: values of a token. Over W processes each returns its own share; the mean of the shares
is the loss of the whole batch.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from selfsup.batch import Batch, View
from selfsup.masks import IndexMask
from selfsup.parts.precision import no_autocast
from selfsup.parts.tokens import Tokens


def masked_mse(prediction: Tensor, target: Tensor) -> Tensor:
    """(B, M, P), (B, M, P) -> (): squared error averaged over a token's values, then over the M removed tokens.

    MAE (arXiv 2111.06377), section 3, "Reconstruction target". Every sample has equally many removed tokens.
    """
    return F.mse_loss(prediction.float(), target.float())


def moments(patches: Tensor, apart: int = 1) -> tuple[Tensor, Tensor]:
    """(B, N, P) -> (B, N, 1), (B, N, 1): mean and unbiased deviation of each patch, never zero, as the authors'.

    apart: channels that are apart, as (B, N, P) each: of every value those of its own channel.
    """
    if apart == 1:
        var, mean = torch.var_mean(patches, dim=2, keepdim=True)
        return mean, (var + 1e-6).sqrt()
    var, mean = torch.var_mean(patches.reshape(*patches.shape[:2], -1, apart), dim=2)
    values = patches.shape[2] // apart
    return mean.repeat(1, 1, values), (var + 1e-6).sqrt().repeat(1, 1, values)


def blurred(images: Tensor, deviation: float) -> Tensor:
    """(B, C, H, W) -> (B, C, H, W): convolved with a Gaussian, cut at four deviations, in pixels; zero outside.

    SemAIM's code (arXiv 2312.10457) blurs its targets so, after SAIM's.
    """
    channels, radius = images.shape[1], round(4 * deviation)
    apart = torch.arange(-radius, radius + 1, device=images.device, dtype=images.dtype)
    kernel = torch.softmax(-apart.square() / (2 * deviation**2), dim=0).expand(channels, 1, 1, -1)
    with no_autocast(images):
        across = F.conv2d(images, kernel, padding=(0, radius), groups=channels)
        return F.conv2d(across, kernel.mT, padding=(radius, 0), groups=channels)


def masked_smooth_l1(prediction: Tensor, target: Tensor, weight: Tensor, *, beta: float = 0.0) -> Tensor:
    """(M, P), (M, P), (M,) -> (): smooth L1 averaged over a token's values, then by the weights of all M tokens.

    beta: where the square of the error ends and its absolute value begins; 0: nowhere, plain L1, as in SimMIM
    (arXiv 2111.09886), eq. 1. data2vec (arXiv 2202.03555), eq. 3, has 2 for images.
    """
    error = F.smooth_l1_loss(prediction.float(), target.float(), beta=beta, reduction="none")
    return (error.mean(dim=1) * weight).sum()


def masked(batch: Batch) -> tuple[Tokens, IndexMask]:
    """Return the tokens and the mask of the one view of a batch."""
    [view] = batch.views
    return masked_view(view)


def masked_view(view: View) -> tuple[Tokens, IndexMask]:
    """Return the tokens and the mask of a view."""
    assert isinstance(view.value, Tokens)
    assert isinstance(view.mask, IndexMask)
    return view.value, view.mask

"""Losses of reconstructions, in fp32 whatever precision the step has.

B: batch, M: removed tokens, P: values of a token. Over W processes each returns its own share; the mean of the shares
is the loss of the whole batch.
"""

import torch.nn.functional as F
from torch import Tensor


def masked_mse(prediction: Tensor, target: Tensor) -> Tensor:
    """(B, M, P), (B, M, P) -> (): squared error averaged over a token's values, then over the M removed tokens.

    MAE (arXiv 2111.06377), section 3, "Reconstruction target". Every sample has equally many removed tokens.
    """
    return F.mse_loss(prediction.float(), target.float())

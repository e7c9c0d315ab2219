"""One equation each of students and their teachers, in fp32 whatever precision the step has. N: samples, D: channels.

Over W processes each returns its own share; the mean of the shares is the loss of the whole batch.
"""

import torch.nn.functional as F
from torch import Tensor


def cosine_error(student: Tensor, target: Tensor) -> Tensor:
    """(N, D), (N, D) -> (): 2 - 2 cos, the squared distance of unit vectors, averaged over samples.

    BYOL (arXiv 2006.07733), eq. 2.
    """
    return 2 - 2 * F.cosine_similarity(student.float(), target.float(), dim=1).mean()

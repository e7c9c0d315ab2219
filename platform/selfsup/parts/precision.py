"""What keeps its precision whatever precision the step has."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def no_autocast(x: Tensor) -> AbstractContextManager[None]:
    """Where x lives: what is inside keeps the precision of its operands."""
    kind = x.device.type
    if not torch.amp.is_autocast_available(kind):  # on meta
        return nullcontext()
    return torch.autocast(kind, enabled=False)

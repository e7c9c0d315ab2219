"""Operations whose precision does not depend on the step's."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def no_autocast(x: Tensor) -> AbstractContextManager[None]:
    """Disable autocast inside the block, on the device of x: operations have the precision of their operands."""
    kind = x.device.type
    if not torch.amp.is_autocast_available(kind):  # on meta
        return nullcontext()
    return torch.autocast(kind, enabled=False)

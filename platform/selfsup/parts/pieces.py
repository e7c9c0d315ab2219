"""A large batch through an encoder in pieces, at the memory of one: value and gradient are those of the whole.

Gao, Zhang, Han and Callan, "Scaling deep contrastive learning batch size under memory limited setup", 2021,
arXiv:2101.06983 (GradCache). The maps of every piece are kept, their intermediate values are not; the loss is the whole
batch's; for the gradient each piece is computed once more. Batch normalization alone sees pieces.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

Maps = tuple[Tensor, ...]


def in_pieces(encode: Callable[..., Maps], x: Tensor, pieces: int, module: nn.Module, *beside: Tensor) -> Maps:
    """(N, ...) -> (N, ...) for each map that `encode` returns. module: the one whose layers `encode` runs.

    beside: (N, ...) each, further arguments of `encode`, cut alike. Random layers draw the same in both computations of
    a piece.
    """
    if pieces == 1:
        return encode(x, *beside)

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), untouched(module)

    cut = zip(*(part.chunk(pieces) for part in (x, *beside)), strict=True)
    maps = [checkpoint(encode, *piece, use_reentrant=False, context_fn=contexts) for piece in cut]
    return tuple(torch.cat(parts) for parts in zip(*maps, strict=True))


@contextmanager
def untouched(module: nn.Module) -> Iterator[None]:
    """Restore running statistics after the block: the first computation of these pieces has moved them."""
    buffers = [(layer, *named) for layer in module.modules() for named in layer.named_buffers(recurse=False)]
    for layer, name, buffer in buffers:
        setattr(layer, name, buffer.clone())
    try:
        yield
    finally:
        for layer, name, buffer in buffers:
            setattr(layer, name, buffer)

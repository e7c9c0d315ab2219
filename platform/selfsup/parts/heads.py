"""What stands on an encoder while it trains, and is thrown away afterwards."""

from torch import nn


def projector(dim: int, hidden: int, out: int) -> nn.Sequential:
    """(B, dim) -> (B, out): two linear layers, each batch-normalised, a ReLU between them.

    SimCLR (arXiv 2002.05709), section 4.2, with the batch normalisation of the authors' code; there the last one has no
    shift, here it has. The linear layers need no bias before a layer that subtracts the mean.
    """
    return nn.Sequential(
        nn.Linear(dim, hidden, bias=False),
        nn.BatchNorm1d(hidden),
        nn.ReLU(),
        nn.Linear(hidden, out, bias=False),
        nn.BatchNorm1d(out),
    )


def xavier_linears(module: nn.Module) -> None:
    """Every linear layer inside: uniform weights by Glorot and Bengio's rule, zero biases; MAE's start."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)

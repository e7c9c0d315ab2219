"""Random walks over the parts of a sample at several times. B: samples, T: times, N: nodes at each, D: channels."""

import torch
from torch import Tensor

from selfsup.parts.precision import no_autocast

FAR = -1e20  # the energy of an edge that is dropped


def transitions(nodes: Tensor, dropped: Tensor, *, temperature: float) -> tuple[Tensor, Tensor]:
    """(B, T, N, D), (B, 2, T - 1, N, N) bool -> (B, T - 1, N, N) twice: steps to the next time, and back from there.

    Rows are the probabilities of where a walk goes from a node: a softmax of cosines over the temperature, without the
    edges that are dropped. nodes: unit vectors. A node that all edges are dropped of goes anywhere.
    """
    with no_autocast(nodes):
        energies = nodes[:, :-1] @ nodes[:, 1:].mT / temperature
    out, home = (
        energy.masked_fill(without, FAR).softmax(dim=-1)
        for energy, without in zip((energies, energies.mT), dropped.unbind(1), strict=True)
    )
    return out, home


def cycles(out: Tensor, home: Tensor) -> Tensor:
    """(B, T - 1, N, N), (B, T - 1, N, N) -> (T - 2, B, N, N): where walks end that turn after 2, 3, ... T - 1 steps.

    They begin at the first time and come back to it by the same times: palindromes.
    """
    with no_autocast(out):
        there, back, ends = out[:, 0], home[:, 0], []
        for step in range(1, out.shape[1]):
            there, back = there @ out[:, step], home[:, step] @ back
            ends.append(there @ back)
    return torch.stack(ends)

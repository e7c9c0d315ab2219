"""The contracts of an augmentation, checked on a few random images on the CPU: `selfsup check-augmentation ./mine.py`.

`plan` checks them, too, with the knobs of the spec and images as those of the run.
"""

import random
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from selfsup.augmentation import Augmentation, load
from selfsup.promises import need_defaults, outcome

IMAGES = 6
SIZE = 32  # pixels a side
CHANNELS = (1, 3, 13)  # of images on which one that takes any is checked
ROUNDING = 1e-5  # of a batched product, whose order of additions depends on the number of images


class AugmentationTrial(NamedTuple):
    """An augmentation, and the shape (C, H, W) of the images that it is tried on."""

    operation: Augmentation
    shape: tuple[int, ...]

    def images(self) -> Tensor:
        """-> (IMAGES, C, H, W), the same each time; the first is black, the second white"""
        images = torch.rand(IMAGES, *self.shape, generator=torch.Generator().manual_seed(0))
        images[0], images[1] = 0.0, 1.0
        return images

    def draws(self) -> Tensor:
        """-> (IMAGES, num_draws), the same each time"""
        number = self.operation.num_draws(self.shape[0])
        return torch.rand(IMAGES, number, generator=torch.Generator().manual_seed(1))

    def result(self) -> Tensor:
        return self.operation.apply(self.images(), self.draws())


def check(name: str) -> Iterator[tuple[str, str]]:
    """Yield each contract, for each number of channels, and how the augmentation breaks it; "" where it keeps it.

    Raises SpecError for one that cannot be loaded, or that has knobs without a default.
    """
    kind = load(name)
    need_defaults(name, kind.Hyper)
    for channels in kind.channels or CHANNELS:
        for title, contract in CONTRACTS.items():
            words = f"{channels} channel{'s' * (channels > 1)}"
            yield f"{title}, of {words}", outcome(_tried, contract, kind, channels)


def broken(operation: Augmentation, shape: tuple[int, ...]) -> str:
    """Return the first contract that it breaks on images (C, H, W), and how; "" where it keeps all."""
    for title, contract in CONTRACTS.items():
        if reason := outcome(contract, AugmentationTrial(operation, shape)):
            return f"not kept: {title}: {reason}"
    return ""


def _tried(contract: "Contract", kind: type[Augmentation], channels: int) -> str:
    return contract(AugmentationTrial(kind(kind.Hyper()), (channels, SIZE, SIZE)))


def _keeps_what_images_are(trial: AugmentationTrial) -> str:
    number = trial.operation.num_draws(trial.shape[0])
    if type(number) is not int or number < 0:
        return f"num_draws gives {number!r}, not a number of draws"
    result, expected = trial.result(), (IMAGES, *trial.shape)
    if result.shape != expected:
        return f"apply makes {tuple(result.shape)} of {expected}"
    if result.dtype != torch.float32:
        return f"apply makes {result.dtype} of torch.float32"
    low, high = result.min().item(), result.max().item()
    inside = low >= 0 and high <= 1  # NaN is not
    return "" if inside else f"values go from {low:.3g} to {high:.3g}; end apply with .clamp(0, 1)"


def _is_a_function_of_draws(trial: AugmentationTrial) -> str:
    results = []
    for other in (1, 2):  # what others draw from the common generators
        random.seed(other)
        np.random.seed(other)
        torch.manual_seed(other)
        before = _states()
        results.append(trial.result())
        if used := [name for name, state in _states().items() if state != before[name]]:
            return f"apply uses the common random numbers of {used[0]}; take them from draws"
    return "" if results[0].equal(results[1]) else "two calls with equal draws give different images"


def _states() -> dict[str, bytes]:
    """Return the state of each generator that a module shares with others."""
    numpy_state = np.random.get_state(legacy=False)["state"]
    states = {"random": random.getstate(), "numpy": (numpy_state["key"].tolist(), numpy_state["pos"])}
    return {name: repr(state).encode() for name, state in states.items()} | {
        "torch": torch.get_rng_state().numpy().tobytes()
    }


def _changes_images_one_by_one(trial: AugmentationTrial) -> str:
    images, draws, together = trial.images(), trial.draws(), trial.result()
    for number in range(IMAGES):
        one = slice(number, number + 1)
        alone = trial.operation.apply(images[one].clone(), draws[one].clone())
        if not torch.allclose(alone, together[one], rtol=0, atol=ROUNDING):
            return "an image alone becomes another than the same image in a batch"
    return ""


Contract = Callable[[AugmentationTrial], str]
CONTRACTS: dict[str, Contract] = {
    "images keep their shape, type and range": _keeps_what_images_are,
    "equal draws give equal images": _is_a_function_of_draws,
    "each image is changed by itself": _changes_images_one_by_one,
}

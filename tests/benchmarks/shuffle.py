"""How well orders mix what lies sorted by class in the shards, beside a full permutation and webdataset's buffers.

python tests/benchmarks/shuffle.py

ImageNet's measures: 1281 shards of 1000 samples, a class a shard and then some, batches of 1024. Numbers, no verdict.
"""

import random
from collections.abc import Callable, Iterator
from itertools import chain

import numpy as np
from numpy.typing import NDArray
from webdataset.filters import _shuffle

from selfsup.pipelines.data.order import SampleOrder

SHARDS, SHARD, CLASSES, BATCH, WORKERS = 1281, 1000, 1000, 1024, 8
SAMPLES = SHARDS * SHARD
STEPS = SAMPLES // BATCH

Batches = NDArray[np.int64]  # (steps, batch) sample numbers of an epoch


def permuted(epoch: int) -> Batches:
    return np.random.default_rng(epoch).permutation(SAMPLES)[: STEPS * BATCH].reshape(STEPS, BATCH)


def lanes(**changes: int) -> Callable[[int], Batches]:
    order = SampleOrder(samples=SAMPLES, batch=BATCH, seed=0, **changes)

    def epoch(number: int) -> Batches:
        first = number * STEPS
        return np.concatenate([order.take(lane, first, first + STEPS)[1] for lane in range(order.lanes)], axis=1)

    return epoch


def buffered(size: int, *, mixed: bool) -> Callable[[int], Batches]:
    """Shuffled shards dealt out to the loader's workers, each with a buffer; a batch is of one worker, or of all."""

    def epoch(number: int) -> Batches:
        draw = random.Random(number)
        shards = draw.sample(range(SHARDS), SHARDS)
        streams = [_shuffle(_samples(shards[worker::WORKERS]), size, size, rng=draw) for worker in range(WORKERS)]
        made = [np.fromiter(stream, np.int64) for stream in streams]
        if mixed:
            length = min(len(each) for each in made) // (BATCH // WORKERS) * (BATCH // WORKERS)
            parts = [each[:length].reshape(-1, BATCH // WORKERS) for each in made]
            return np.concatenate(parts, axis=1)
        return np.concatenate([each[: len(each) // BATCH * BATCH].reshape(-1, BATCH) for each in made])

    return epoch


def _samples(shards: list[int]) -> Iterator[int]:
    return chain.from_iterable(range(shard * SHARD, (shard + 1) * SHARD) for shard in shards)


def told(epoch: Callable[[int], Batches]) -> tuple[float, float, float, float]:
    """Classes of a batch; of the fewest of all batches; pairs that share a batch again, by chance 1; correlation."""
    one, other = epoch(0), epoch(1)
    classes = [len(np.unique(batch)) for batch in one * CLASSES // SAMPLES]
    place = np.full((2, SAMPLES), -1)
    for row, batches in zip(place, (one, other), strict=True):
        row[batches.ravel()] = np.arange(batches.size)
    place = place[:, (place >= 0).all(0)]
    both = place // BATCH
    _, together = np.unique(both[0] * (both[1].max() + 1) + both[1], return_counts=True)
    _, alone = np.unique(both[0], return_counts=True)
    chance = (alone * (alone - 1) // 2).sum() * (BATCH - 1) / (place.shape[1] - 1)
    again = (together * (together - 1) // 2).sum() / chance
    return float(np.mean(classes)), float(np.min(classes)), float(again), float(np.corrcoef(place)[0, 1])


ORDERS: dict[str, Callable[[int], Batches]] = {
    "full permutation": permuted,
    "selfsup": lanes(),
    "selfsup, mix 4": lanes(mix=4),
    "selfsup, chunk 32, mix 4": lanes(chunk=32, mix=4),
    "webdataset, buffer 10000, batches of all workers": buffered(10_000, mixed=True),
    "webdataset, buffer 10000, a batch a worker": buffered(10_000, mixed=False),
    "webdataset, buffer 1000, a batch a worker": buffered(1_000, mixed=False),
}


def main() -> None:
    print(f"{'':<50}{'classes':>9}{'of full':>9}{'fewest':>8}{'meet again':>12}{'correlation':>13}")
    full = told(permuted)[0]
    for name, epoch in ORDERS.items():
        mean, fewest, again, correlation = told(epoch)
        row = f"{mean:>9.1f}{mean / full:>9.1%}{fewest:>8.0f}{again:>12.2f}{correlation:>+13.4f}"
        print(f"{name:<50}{row}", flush=True)


if __name__ == "__main__":
    main()

"""Counter-based random numbers: pure functions of (seed, epoch, sample, purpose), so that no worker holds a state.

Philox4x32-10, vectorized over counters: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
"""

import numpy as np
from numpy.typing import NDArray

CROP, PHOTO, MASK, ORDER, DRAW, STEP_MASK, OWN, CHANGE = range(8)  # purposes; view v draws with purpose + 16 * v

_MULTIPLIERS = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_WEYL = np.uint32(0x9E3779B9), np.uint32(0xBB67AE85)
_LOW = np.uint64(0xFFFFFFFF)
_ROUNDS = 10
_FEISTEL_ROUNDS = 8

Words = NDArray[np.uint32]
Ints = NDArray[np.int64]


def philox(counter: tuple[Words, Words, Words, Words], key: tuple[Words, Words]) -> tuple[Words, Words, Words, Words]:
    """Return four words from four counter words and two key words, elementwise with broadcasting."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    with np.errstate(over="ignore"):
        for _ in range(_ROUNDS):
            p0, p1 = _MULTIPLIERS[0] * c0, _MULTIPLIERS[1] * c2
            c0, c1, c2, c3 = _high(p1) ^ c1 ^ k0, _low(p1), _high(p0) ^ c3 ^ k1, _low(p0)
            k0, k1 = k0 + _WEYL[0], k1 + _WEYL[1]
    return c0, c1, c2, c3


def uniform(*, seed: int, epoch: Ints, index: Ints, purpose: int, draws: int) -> NDArray[np.float32]:
    """(n,) epochs, (n,) sample numbers -> (n, draws) uniform in [0, 1) of each (seed, epoch, sample, purpose)"""
    blocks = np.arange(-(-draws // 4), dtype=np.uint32)[None, :]
    sample = index.astype(np.uint64)[:, None]
    counter = blocks, np.full_like(blocks, purpose), _low(sample), _high(sample)
    words = philox(counter, (_word(seed), epoch.astype(np.uint32)[:, None]))
    stacked = np.stack(np.broadcast_arrays(*words), axis=-1).reshape(len(index), -1)[:, :draws]
    return (stacked >> np.uint32(8)).astype(np.float32) * np.float32(2**-24)


def permute(position: Ints, size: int, *, seed: int, epoch: int, salt: tuple[int, int] = (0, 0)) -> Ints:
    """(n,) positions -> (n,) values of a pseudo-random permutation of range(size), which is never listed

    A Feistel network over the next even power of two, iterated until the value is in range: cycle walking (Black and
    Rogaway, "Ciphers with arbitrary finite domains", CT-RSA 2002).
    """
    half = max(1, -(-max(size - 1, 1).bit_length() // 2))
    key = _word(seed), _word(epoch)
    value = _feistel(position.astype(np.uint64), half, key, salt)
    while (outside := value >= size).any():
        value[outside] = _feistel(value[outside], half, key, salt)
    return value.astype(np.int64)


def shuffled(size: int, *, seed: int, epoch: int, salt: tuple[int, int]) -> Ints:
    """-> (size,) a pseudo-random permutation of range(size)"""
    counter = np.arange(size, dtype=np.uint32), _word(ORDER), _word(salt[0]), _word(salt[1])
    high, low, *_ = philox(counter, (_word(seed), _word(epoch)))
    return np.argsort((high.astype(np.uint64) << np.uint64(32)) | low, kind="stable")


def _feistel(
    value: NDArray[np.uint64], half: int, key: tuple[Words, Words], salt: tuple[int, int]
) -> NDArray[np.uint64]:
    mask = np.uint64((1 << half) - 1)
    left, right = value >> np.uint64(half), value & mask
    for number in range(_FEISTEL_ROUNDS):
        counter = right.astype(np.uint32), _word(ORDER + 16 * (number + 1)), _word(salt[0]), _word(salt[1])
        left, right = right, left ^ (philox(counter, key)[0].astype(np.uint64) & mask)
    return (left << np.uint64(half)) | right


def _word(value: int) -> Words:
    return np.array([value], dtype=np.uint32)


def _low(value: NDArray[np.uint64]) -> Words:
    return (value & _LOW).astype(np.uint32)


def _high(value: NDArray[np.uint64]) -> Words:
    return (value >> np.uint64(32)).astype(np.uint32)

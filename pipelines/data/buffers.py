"""Memory of arrays that are used again."""

from collections import defaultdict
from math import prod
from weakref import finalize

import numpy as np

from selfsup.modality import Raw


class BufferPool:
    """Uninitialized arrays that reuse the memory of released ones: fresh pages would cost a tenth of a step."""

    def __init__(self) -> None:
        self._idle: defaultdict[int, list[memoryview]] = defaultdict(list)

    def take(self, shape: tuple[int, ...], kind: type[np.generic] = np.uint8) -> Raw:
        size = prod(shape) * np.dtype(kind).itemsize
        idle = self._idle[size]
        memory = idle.pop() if idle else np.empty(size, np.uint8).data
        array = np.frombuffer(memory, kind)  # kept alive by every view of it
        finalize(array, idle.append, memory)
        return array.reshape(shape)

"""Right answers of a test set of which a sample may have several, or classes that are several of train.

{"ILSVRC2012_val_00000001": ["n01440764", "n01443537"], "chair": [423, 559]}

A JSON file says of a sample, by its key or the last part of it, or of all samples of a class, which classes of train
are right, by names or by numbers. Samples of which it says nothing, or no class, are not scored: as by the labels of
Lucas Beyer et al., "Are we done with ImageNet?", arXiv 2006.07159 (ReaL). Classes that are several of ImageNet's are
in ObjectNet: Andrei Barbu et al., "ObjectNet", NeurIPS 2019.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from selfsup.errors import DataError
from selfsup.explain import did_you_mean
from selfsup.pipelines.data.manifest import Manifest
from selfsup.pipelines.data.reader import SampleReader
from selfsup.pipelines.data.renaming import json_of

BATCH = 256  # samples whose keys are read at once
Answers = Mapping[str, tuple[int, ...]]  # sample or class -> classes of train


class AnswerSource(NamedTuple):
    """The right classes of validation samples. path: of the file. field: of samples, with which their keys are read."""

    path: str
    train: Manifest
    val: Manifest
    field: str

    def read(self, ids: NDArray[np.int64]) -> NDArray[np.bool_]:
        """(M,) -> (M, C): which classes are right of samples, that are numbered from those of train on.

        Raises DataError for a file that cannot be read, and where no sample has an answer.
        """
        known, classes = read(self.path, self.train), self.val.classes
        right = np.zeros((len(ids), len(self.train.classes)), np.bool_)
        samples, numbers, key = SampleReader(self.val, self.field), ids - self.train.num_samples, ""
        for start in range(0, len(ids), BATCH):
            for row, sample in enumerate(samples.read(numbers[start : start + BATCH]), start):
                key, own = sample.key, "" if sample.label is None else classes[sample.label]
                names = key, key.rpartition("/")[2], own
                right[row, list(next((known[name] for name in names if name in known), ()))] = True
        if not right.any():
            raise DataError(f"{self.path}: says of no sample of {self.val.root} what is right, such as of {key!r}")
        return right


def read(path: str, train: Manifest) -> Answers:
    """Return what a file says. Raises DataError for what is no such file, or a class that train lacks."""
    content = json_of(path, "right answers")
    if not isinstance(content, dict) or not all(isinstance(names, list) for names in content.values()):
        raise DataError(f'{path}: expected lists by sample or class, such as {{"val_1": ["cat", "dog"], "val_2": []}}')
    number = {name: place for place, name in enumerate(train.classes)}
    return {key: tuple(_numbered(name, number, path) for name in names) for key, names in content.items()}


def _numbered(name: Any, number: Mapping[str, int], path: str) -> int:
    """Return the number of a class that a file gives by name or number."""
    if type(name) is int and 0 <= name < len(number):
        return name
    if not isinstance(name, str) or name not in number:
        hint = did_you_mean(name, number) or f"its {len(number)} are {', '.join([*number][:5])} ..."
        raise DataError(f"{path}: train has no class {name!r} ({hint})")
    return number[name]

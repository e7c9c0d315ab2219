"""Kinds of versions of samples, one a file, whose features evaluations read beside those of the samples themselves."""

import abc
from typing import Any

import numpy as np
from numpy.typing import NDArray

from selfsup import modality, registry
from selfsup.modality import Data, Raw
from selfsup.pipelines.data.manifest import Manifest
from selfsup.spec import Run
from selfsup.views import ViewSpec

PACKAGE = "selfsup.pipelines.stages.versions"
Columns = dict[str, NDArray[Any]]


class Versions(abc.ABC):
    """Versions of the samples of a split, by their numbers from 0.

    whole: the view of the samples themselves. view: that by which the encoder reads a version.
    """

    def __init__(self, run: Run, split: Manifest, whole: ViewSpec) -> None:
        self.split, self.whole = split, whole
        self.view = self.view_of(run)

    @property
    def field(self) -> str:
        """Return the column of the manifest that versions are made of."""
        return self.whole.modality

    @property
    def reading(self) -> Any:
        return self.split.reading(self.whole.modality)

    def view_of(self, run: Run) -> ViewSpec:  # noqa: ARG002
        return self.whole

    @abc.abstractmethod
    def load(self, data: Data, sample: int, version: int) -> Raw:
        """-> (*S, C): a version of the sample of that number. Raises DecodeError for a damaged one."""

    def columns(self, samples: NDArray[np.int64], versions: NDArray[np.int64]) -> Columns:  # noqa: ARG002
        """(n,), (n,) -> what else the encoder takes of each, n rows: `draws` where its view is augmented"""
        return {}

    @classmethod
    def unfit(cls, modality: str, split: Manifest) -> str:  # noqa: ARG003
        """Return why the samples of a split have no such versions; "" where they have."""
        return ""


def load(kind: str) -> type[Versions]:
    """Return the versions in `versions/<kind>.py`."""
    made: type[Versions] = registry.only(PACKAGE, kind, Versions)
    return made


def shown(data: Data, view: ViewSpec, reading: Any, draws: NDArray[np.floating]) -> Raw:
    """(1, place_draws) -> (*S, C): a view of one sample. Raises DecodeError for a damaged one."""
    kind = modality.load(view.modality)
    boxes = kind.place(view, np.array([kind.extent(data, reading)]), draws)
    return kind.load(data, boxes, [view], reading)[0]

"""Samples as evaluations see them: a view of each, and of what lies beside it."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from selfsup import modality
from selfsup.modality import Data, DecodeError, Raw
from selfsup.pipelines.data.manifest import Manifest
from selfsup.pipelines.data.reader import SampleReader
from selfsup.pipelines.stages.encoder_source import Columns
from selfsup.views import ViewSpec

Place = tuple[tuple[str, ...], NDArray[np.float64]]  # axes of a view, and its `View.box`, (1, 3A + 1)


class Load:
    """A map from numbers of samples, from `first` on, val after train, to a view and a label of each that decodes.

    beside: the view of a companion that is loaded, too, of the same time: as training hears the middle of a clip.
    only: the samples that these numbers are of, counted from `first`; None: all.
    """

    def __init__(
        self,
        train: Manifest,
        val: Manifest,
        view: ViewSpec,
        first: int = 0,
        beside: ViewSpec | None = None,
        only: NDArray[np.int64] | None = None,
    ) -> None:
        self._splits, self._first, self._only = (train, val), first, only
        number = {name: place for place, name in enumerate(train.classes)} | {"": -1}
        self._class = [  # label -> its number in train's classes; -1 and the last: none there
            np.array([*(number.get(name, -1) for name in split.classes), -1]) for split in self._splits
        ]
        self._views = {"sample": view} | ({"beside": beside} if beside else {})

    def __call__(self, batch: Columns) -> Columns:
        ids = batch["id"] if self._only is None else self._only[batch["id"]]
        number, limit = ids + self._first, self._splits[0].num_samples
        parts = [self._read(split, number[(number >= limit) == split]) for split in (0, 1)]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _read(self, split: int, number: NDArray[np.int64]) -> Columns:
        manifest, loaded = self._splits[split], list[list[Raw | None]]()
        shown: list[Place | None] = [None] * len(number)
        for view in self._views.values():
            samples = SampleReader(manifest, view.modality).read(number - split * self._splits[0].num_samples)
            label = np.array([-1 if sample.label is None else sample.label for sample in samples], np.int64)
            parts = [_loaded(view, sample.data, manifest, at) for sample, at in zip(samples, shown, strict=True)]
            loaded.append([part and part[0] for part in parts])
            shown = [part and part[1] for part in parts]
        made = np.array([all(raw is not None for raw in raws) for raws in zip(*loaded, strict=True)], bool)
        return {
            **{name: self._stack(name, raws, made, manifest) for name, raws in zip(self._views, loaded, strict=True)},
            "label": self._class[split][label[made]],
            "split": np.full(made.sum(), split, np.int64),
            "id": number[made].astype(np.int64),
        }

    def _stack(self, name: str, raws: list[Raw | None], made: NDArray[np.bool_], manifest: Manifest) -> NDArray[Any]:
        view = self._views[name]
        shape, dtype = modality.load(view.modality).raw(view, manifest.reading(view.modality))
        parts = [raw for raw, is_made in zip(raws, made, strict=True) if is_made and raw is not None]
        return np.stack(parts) if parts else np.empty((0, *shape), dtype)


def _loaded(view: ViewSpec, data: Data, manifest: Manifest, shown: Place | None) -> tuple[Raw, Place] | None:
    """Return a view and where it lies; None where it cannot be decoded. shown: where that of a companion lies."""
    kind, reading = modality.ready(view.modality), manifest.reading(view.modality)
    try:
        extents, none = np.array([kind.extent(data, reading)]), np.empty((1, 0))
        if shown and modality.TIME in kind.axes and modality.TIME in shown[0]:
            box = kind.follow(view, extents, none, *shown)
        else:
            box = kind.place(view, extents, none)
        return kind.load(data, box, [view], reading)[0], (kind.axes, np.concatenate([box, extents], axis=1))
    except DecodeError:
        return None

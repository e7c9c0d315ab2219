"""Samples to embed, wherever they lie: shards with a manifest, or the files of a folder."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from selfsup import modality
from selfsup.errors import DataError
from selfsup.modality import Data
from selfsup.pipelines.data import bundled, head, manifest, storage, urls
from selfsup.pipelines.data.folders import Walk, ending, suffixes
from selfsup.pipelines.data.manifest import Manifest
from selfsup.pipelines.data.philox import Ints
from selfsup.pipelines.data.reader import SampleReader


class NamedSample(NamedTuple):
    """name: the key in its shard, or the path in its folder. data: encoded. label: the name of its class."""

    name: str
    data: Data
    label: str | None


class SampleSource(Protocol):
    """Samples by number. reading: how their values are read; None: as the encoder's own were."""

    @property
    def reading(self) -> Any: ...

    def __len__(self) -> int: ...

    def read(self, numbers: Ints) -> list[NamedSample]:
        """(n,) -> n samples in that order"""


@dataclass(frozen=True)
class ShardSource:
    """The samples of a data set with a manifest."""

    manifest: Manifest
    modality: str

    @property
    def reading(self) -> Any:
        return self.manifest.reading(self.modality)

    def __len__(self) -> int:
        return self.manifest.num_samples

    def read(self, numbers: Ints) -> list[NamedSample]:
        classes = self.manifest.classes
        samples = SampleReader(self.manifest, self.modality).read(numbers)
        return [NamedSample(key, data, None if label is None else classes[label]) for key, data, label in samples]


@dataclass(frozen=True)
class FileSource:
    """Files of a folder. paths: in the folder; the first folder in a path is the sample's class."""

    root: Path
    paths: Sequence[str]
    reading: Any = None

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, numbers: Ints) -> list[NamedSample]:
        """(n,) -> n samples in that order; of a file that cannot be read, no bytes."""
        names = [self.paths[number] for number in numbers.tolist()]
        return [NamedSample(name, _bytes(self.root / name), _label(name)) for name in names]


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _label(path: str) -> str | None:
    folder, slash, _ = path.partition("/")
    return folder if slash else None


def find(place: str, home: Path, kind: str) -> tuple[SampleSource, dict[str, int]]:
    """Return the samples of a modality at a place, and the number of files left out, by kind.

    place: a folder or URL of shards with a manifest, bundled://photos/val, or a folder of files, or one file. Raises
    DataError where there is no such sample.
    """
    url = bundled.resolve(place, home)
    if urls.is_remote(url) or (Path(url) / head.NAME).exists():
        return _shards(manifest.load(url), kind), {}
    path = Path(url).absolute()
    if path.is_file() and ending(path.name) in suffixes(kind):
        return FileSource(path.parent, (path.name,)), {}
    if not path.is_dir():
        raise DataError(f"{place}: there is no such folder; expected {kind}s, or shards with a manifest")
    if shards := storage.list_files(str(path), suffix=".tar"):
        raise DataError(f"{place}: shards without a manifest, such as {shards[0]}: run `selfsup shards index {place}`")
    return _files(place, path, kind)


def _shards(data: Manifest, kind: str) -> ShardSource:
    if kind not in data.fields:
        raise DataError(f"{data.home}: its samples have {', '.join(data.fields)}, and the encoder is for {kind}s")
    return ShardSource(data.having(kind), kind)


def _files(place: str, root: Path, kind: str) -> tuple[FileSource, dict[str, int]]:
    walk = Walk(root, kind)
    paths = walk.samples(root)
    if not paths:
        known = ", ".join(f".{suffix}" for suffix in modality.load(kind).suffixes)
        raise DataError(
            f"{place}: no {kind} in it{f', but {walk.others}' if walk.others else ''}; expected {known} ..."
        )
    return FileSource(root, tuple(path.relative_to(root).as_posix() for path in paths)), dict(walk.left_out)

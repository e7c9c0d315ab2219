"""A folder of samples: the files of one modality in it, with keys and labels, and a count of all others, by kind."""

import functools
import hashlib
import os
from collections import Counter
from collections.abc import Mapping
from itertools import chain, count
from pathlib import Path
from typing import NamedTuple

from selfsup import modality
from selfsup.errors import DataError
from selfsup.pipelines.data import urls
from selfsup.progress import number_of

HIDDEN = (".", "__", "@", "#", "$")  # how names begin of what file managers, cameras and servers keep: @eaDir, __MACOSX
SPLITS = frozenset(("train", "training", "val", "valid", "validation", "test", "testing"))  # seldom names of classes


class PackFile(NamedTuple):
    """A file to be packed. label: the number of its folder among the classes; None where folders are no classes."""

    path: Path
    key: str
    label: int | None


class Sources(NamedTuple):
    """The files of a folder that are packed. left_out: number of other files by kind."""

    root: Path
    modality: str
    files: list[PackFile]
    classes: list[str]
    left_out: Mapping[str, int]

    def split(self, share: float) -> "tuple[Sources, Sources]":
        """Return sources for training, and of each class that share of files, rounded, for validation.

        Keys decide which, so that the same files give the same split on any machine. Raises DataError where either
        would be without a file.
        """
        held_out: set[str] = set()
        for label in {file.label for file in self.files}:
            keys = sorted((file.key for file in self.files if file.label == label), key=_shuffled)
            held_out.update(keys[: round(share * len(keys))])
        parts = [[file for file in self.files if (file.key in held_out) == chosen] for chosen in (False, True)]
        if not all(parts):
            raise DataError(
                f"{self.root}: {len(self.files)} {self.modality} files cannot be split by a share of {share:g}"
            )
        train, val = parts
        return self._replace(files=train), self._replace(files=val, left_out={})

    @property
    def splits(self) -> list[str]:
        """Return the classes that are called as splits of a data set are."""
        return [name for name in self.classes if name.lower() in SPLITS]


def find(folder: Path, *, flat: bool = False) -> Sources:
    """Return all samples by class and path, and the classes: all folders, also empty ones, so that splits agree.

    flat: folders are no classes. Raises DataError where there is none, or where classes and samples lie side by side.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: not a folder; expected one of samples")
    name = modality_in(folder) or "image"
    walk = Walk(folder, name)
    if flat:
        files, folders, nested = walk.samples(folder), [], []
    else:
        files, folders = walk.files(folder), walk.folders(folder)
        nested = [walk.samples(path) for path in folders]
    if bool(files) == any(nested):
        raise DataError(f"{folder}: {_problem(walk, bool(files))}")
    labelled: list[tuple[Path, int | None]] = [(path, None) for path in files]
    labelled += [(path, label) for label, paths in enumerate(nested) for path in paths]
    keys = _keys([path.relative_to(folder) for path, _ in labelled])
    sources = [PackFile(path, key, label) for (path, label), key in zip(labelled, keys, strict=True)]
    return Sources(folder, name, sources, [] if files else [path.name for path in folders], walk.left_out)


def modality_in(folder: Path) -> str | None:
    """Return the modality that a folder has most files of; None without any."""
    counts = Counter(ending(name) for _, _, names in os.walk(folder) for name in names)
    files = {name: sum(counts[suffix] for suffix in suffixes(name)) for name in modality.names()}
    name = max(files, key=files.__getitem__)
    return name if files[name] else None


def first_step(home: str, index: str) -> str:
    """Return what makes a manifest where there is none, by what a local folder holds. index: what indexes shards."""
    folder = Path(home)
    if not urls.is_remote(home) and not folder.exists():
        return f"there is no such folder: name one of shards, or make it by `selfsup shards pack SAMPLES {home}`"
    if urls.is_remote(home) or not folder.is_dir() or any(folder.glob("*.tar")) or not (kind := modality_in(folder)):
        return f"for a folder of shards, {index}"
    return f"it is a folder of {kind} files: run `selfsup shards pack {home} OUT`, and name OUT instead"


def suffixes(name: str) -> frozenset[str]:
    """Return the suffixes of a modality's files."""
    kind = modality.load(name)
    return frozenset(f".{suffix}" for suffix in (*kind.suffixes, *kind.others))


def ending(name: str) -> str:
    """Return the suffix of a file, of two parts where that of a modality has two."""
    *_, one, two = ["", "", *Path(name.lower()).suffixes]
    return one + two if one + two in _double() else two


@functools.cache
def _double() -> frozenset[str]:
    return frozenset(suffix for name in modality.names() for suffix in suffixes(name) if suffix.count(".") > 1)


class Walk:
    """A walk through a folder and what is linked into it, each real folder once. left_out: files by kind, links.

    A folder under the root counts where it lies, any other where a link first leads to it, in the order of names.
    """

    def __init__(self, root: Path, name: str) -> None:
        self.modality, self._suffixes = name, suffixes(name)
        self._root, self._real = root, root.resolve()
        self._seen, self.left_out = {self._real}, Counter[str]()

    def folders(self, folder: Path) -> list[Path]:
        """Return the folders directly in it, sorted; count what lies in hidden ones, and links to known ones."""
        inside = [path for path in sorted(folder.iterdir()) if path.is_dir()]
        return [path for path in inside if self._is_new(path)]

    def files(self, folder: Path) -> list[Path]:
        """Return the samples directly in it, sorted; count any other file."""
        inside = [path for path in sorted(folder.iterdir()) if not path.is_dir()]
        kinds = {path: self._kind(path) for path in inside}
        self.left_out.update(kind for kind in kinds.values() if kind)
        return [path for path, kind in kinds.items() if not kind]

    def samples(self, folder: Path) -> list[Path]:
        """Return all samples in it and in its folders, sorted."""
        inside = [path for inner in self.folders(folder) for path in self.samples(inner)]
        return sorted([*self.files(folder), *inside])

    @property
    def others(self) -> str:
        """Return such as "3 .txt files, 1 hidden file", of what was left out."""
        return ", ".join(number_of(kind, number) for kind, number in sorted(self.left_out.items()))

    def _is_new(self, folder: Path) -> bool:
        if folder.name.startswith(HIDDEN):
            self.left_out[f"files in {folder.name}"] += sum(len(names) for _, _, names in os.walk(folder))
            return False
        target = folder.resolve()
        if target in self._seen or self._lies_elsewhere(folder, target):
            self.left_out[f"linked folders whose {self.modality} files are in it already"] += 1
            return False
        self._seen.add(target)
        return True

    def _lies_elsewhere(self, folder: Path, target: Path) -> bool:
        """Return whether the target lies elsewhere under the root, outside of hidden folders, and is met there."""
        if not target.is_relative_to(self._real):
            return False
        place = target.relative_to(self._real)
        return folder.relative_to(self._root) != place and not any(part.startswith(HIDDEN) for part in place.parts)

    def _kind(self, path: Path) -> str | None:
        """Return why a file is left out; None for a sample."""
        if path.name.startswith("."):
            return "hidden files"
        if ending(path.name) not in self._suffixes:
            return f"{path.suffix.lower() or 'unnamed'} files"
        if path.is_symlink() and not path.exists():
            return "links that lead nowhere"
        return None if path.is_file() else "devices and pipes"


def _problem(walk: Walk, both: bool) -> str:
    kind = walk.modality
    if both:
        return (
            f"{kind} files both in it and in folders of it; expected a folder per class, or all of them in one folder: "
            "--flat takes all of them, without labels"
        )
    wanted = f"{'/'.join(modality.load(kind).suffixes)} {kind}"
    none = f"no {wanted} in it{f' (but {walk.others})' if walk.others else ''}"
    return f"{none}; expected a folder per class, or all files in one folder"


def _keys(paths: list[Path]) -> list[str]:
    """Return unique keys without dots, at which WebDataset would cut them: a.jpg and a.png -> a, a-2."""
    keys: dict[str, None] = {}
    for path in paths:
        key = path.with_name(path.stem.replace(".", "_")).as_posix()
        numbered = (f"{key}-{number}" for number in count(2))
        keys[next(candidate for candidate in chain([key], numbered) if candidate not in keys)] = None
    return list(keys)


def _shuffled(key: str) -> bytes:
    return hashlib.blake2b(key.encode(errors="surrogateescape"), digest_size=8).digest()

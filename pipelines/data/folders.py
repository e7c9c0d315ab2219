"""A folder of samples: the files of one modality in it, and a count of all that is left out, by kind."""

import os
from collections import Counter
from pathlib import Path

from selfsup import modality

HIDDEN = (".", "__", "@", "#", "$")  # how names begin of what file managers, cameras and servers keep: @eaDir, __MACOSX


def suffixes(name: str) -> frozenset[str]:
    """Return the suffixes of a modality's files."""
    kind = modality.load(name)
    return frozenset(f".{suffix}" for suffix in (*kind.suffixes, *kind.others))


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

    def _is_new(self, folder: Path) -> bool:
        if folder.name.startswith(HIDDEN):
            self.left_out[f"files in {folder.name}"] += sum(len(names) for _, _, names in os.walk(folder))
            return False
        target = folder.resolve()
        if target in self._seen or self._lies_elsewhere(folder, target):
            self.left_out[f"linked folders whose {self.modality}s are in it already"] += 1
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
        if path.suffix.lower() not in self._suffixes:
            return f"{path.suffix.lower() or 'unnamed'} files"
        if path.is_symlink() and not path.exists():
            return "links that lead nowhere"
        return None if path.is_file() else "devices and pipes"

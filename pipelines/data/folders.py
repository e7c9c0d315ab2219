"""The images in a folder of images, and a count of all that is left out of it, by kind."""

import os
from collections import Counter
from pathlib import Path

from selfsup.pipelines.data import tars

HIDDEN = (".", "__", "@", "#", "$")  # how names begin of what file managers, cameras and servers keep: @eaDir, __MACOSX
IMAGES = frozenset(f".{kind}" for kind in tars.IMAGES + tars.OTHERS)


class Walk:
    """Walks of folders under one root. A linked folder from elsewhere is followed once. left_out: files by kind."""

    def __init__(self, root: Path) -> None:
        self._seen, self.left_out = {root.resolve()}, Counter[str]()

    def folders(self, folder: Path) -> list[Path]:
        """Those directly in it, sorted; what lies in hidden ones, or behind links seen before, is counted."""
        found = [path for path in sorted(folder.iterdir()) if path.is_dir()]
        return [path for path in found if self._counts(path)]

    def files(self, folder: Path) -> list[Path]:
        """The images directly in it, sorted; any other file is counted."""
        found = [path for path in sorted(folder.iterdir()) if not path.is_dir()]
        kinds = {path: _kind(path) for path in found}
        self.left_out.update(kind for kind in kinds.values() if kind)
        return [path for path, kind in kinds.items() if not kind]

    def images(self, folder: Path) -> list[Path]:
        """All images in it and in its folders, sorted."""
        inside = [image for each in self.folders(folder) for image in self.images(each)]
        return sorted([*self.files(folder), *inside])

    def _counts(self, folder: Path) -> bool:
        if folder.name.startswith(HIDDEN):
            self.left_out[f"files in {folder.name}"] += sum(len(names) for _, _, names in os.walk(folder))
            return False
        if not folder.is_symlink():
            return True
        target = folder.resolve()
        if any(target.is_relative_to(seen) or seen.is_relative_to(target) for seen in self._seen):
            self.left_out["linked folders whose images are in it already"] += 1
            return False
        self._seen.add(target)
        return True


def _kind(path: Path) -> str | None:
    """Why a file is left out; None for an image."""
    if path.name.startswith("."):
        return "hidden files"
    if path.suffix.lower() not in IMAGES:
        return f"{path.suffix.lower() or 'unnamed'} files"
    if path.is_symlink() and not path.exists():
        return "links that lead nowhere"
    return None if path.is_file() else "devices and pipes"

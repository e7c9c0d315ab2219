"""Checks of the labels of data, before anything starts."""

from collections.abc import Mapping

from selfsup.errors import DataError, SpecError
from selfsup.pipelines.data.manifest import Manifest


def check(reader: str, path: str, manifest: Manifest, split: str) -> None:
    """Raise SpecError where no sample has a label. reader: the method or evaluation; path: its setting."""
    if manifest.num_labelled:
        return
    other = f", give it labelled data of its own ({path}.data)" if path != "method" else ""
    raise SpecError(
        f"{reader} needs labels, and none of the {manifest.num_samples:,} samples of {split} ({manifest.root}) has "
        f"one: leave it out{other}, or label them: a folder a class for `selfsup shards pack`",
        path,
    )


def check_several(reader: str, manifest: Manifest, split: str) -> None:
    """Raise DataError where all samples are of one class."""
    if len(manifest.classes) < 2:
        raise DataError(
            f"all labels of {manifest.root} are of one class, {manifest.classes[0]!r}: any guess is right, and "
            f"{reader} says nothing. Leave that out, or give data of several classes.",
            split,
        )


def check_classes(train: Manifest, val: Manifest, paths: Mapping[str, str]) -> None:
    """Raise DataError where validation has a class that training lacks, since classes are matched by name."""
    known = set(train.classes)
    if foreign := [name for name in val.classes if name and name not in known]:
        more = f" and {len(foreign) - 1} more" if len(foreign) > 1 else ""
        raise DataError(
            f"{val.root} has the class {foreign[0]!r}{more}, which none of the {len(known)} classes of "
            f"{paths['train']}, {train.root}, is called: its labels would mean nothing. Name classes alike in both: "
            "folders for `selfsup shards pack`, classnames.txt for `selfsup shards index`; or map them by `classes`.",
            paths["val"],
        )

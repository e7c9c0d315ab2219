"""Which number each label of a data set gets, and how the classes are called: known when all labels are."""

from collections import Counter
from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from selfsup.errors import DataError
from selfsup.pipelines.data import storage
from selfsup.pipelines.data.labels import UNSURE, WORDS, decoded

FILE = "classnames.txt"  # beside the shards, a name a line, where CLIP's benchmarks have it, too
MOST = 2**20  # classes that are counted; a greater number is the id of something, and such a name


def names(root: str) -> tuple[str, ...]:
    """The names beside the shards, if there are any. Empty lines at the end are none."""
    if FILE not in storage.names(root, suffix=".txt"):
        return ()
    lines = decoded(storage.read(root, FILE, remedy="")).rstrip().splitlines()
    return tuple(line.strip() for line in lines)


def source(labels: Mapping[str, list[str]], samples: int, known: tuple[str, ...]) -> str:
    """The kind of the labels of a data set: those that are sure, or else numbers that may be labels."""
    sure = any(text in known or text.casefold() not in WORDS for text in labels["label"])
    unsure = (kind for kind in UNSURE if kind in labels and plausible(labels[kind], samples, known))
    return "label" if sure else next(unsure, "label")


def numbered(labels: list[str], known: tuple[str, ...]) -> tuple[NDArray[np.int32], tuple[str, ...]]:
    """(n,) different labels -> the number of the class of each, -1 for none, and the names of all classes.

    Labels that are all numbers are those of the classes. DataError for a label that is none of the classes `known`.
    """
    named = dict(zip(known, range(len(known)), strict=True))
    used = [text for text in labels if text and (text in named or text.casefold() not in WORDS)]
    if all(_counts(text) for text in used) and not (known and all(text in named for text in used)):
        number = {text: int(text) for text in used}
        classes = known or tuple(map(str, range(max(number.values(), default=-1) + 1)))
    else:
        classes = known or tuple(sorted(used, key=_order))
        number = named or {text: place for place, text in enumerate(classes)}
    if wrong := [text for text in sorted(used) if number.get(text, MOST) >= len(classes)]:
        raise DataError(f"label {wrong[0]!r} is none of {len(classes)} classes; {FILE} beside the shards names them")
    if number is named and (twice := [text for text, uses in Counter(known).items() if uses > 1 and text in used]):
        raise DataError(f"label {twice[0]!r} is the name of two classes in {FILE}; make them different")
    return np.array([number.get(text, -1) for text in labels], np.int32), classes


def plausible(labels: list[str], samples: int, known: tuple[str, ...]) -> bool:
    """Whether numbers, one a sample, are those of classes: small, and shared by samples. '' is no label."""
    numbers = {int(text) if _counts(text) else MOST for text in labels if text}
    return bool(numbers) and len(numbers) < samples and max(numbers) < (len(known) or samples - 1)


def remarks(labels: Mapping[str, list[str]], kind: str, samples: int, known: tuple[str, ...]) -> Iterator[str]:
    """What was not taken for labels though it may be meant so, and the other way round. kind: what was."""
    words = [text for text in labels[kind] if text.casefold() in WORDS and text not in known]
    if words:
        yield f"{words[0]!r} is taken for no label; if a class is called so, {FILE} beside the shards must name it"
    used = [text for text in labels[kind] if text and text not in words]
    named = [text for text in used if not is_number(text)]
    if named and len(named) < len(used) and not known:
        yield f"labels are partly numbers, partly names such as {named[0]!r}: all are taken for names"
    for other in UNSURE:
        numbers = [text for text in labels.get(other, ()) if text]
        if not used and numbers:
            shown = f"numbers in .{other}, such as {max(numbers, key=_order)[:20]} in {samples} samples"
            yield f"{shown}, are not taken for labels; if they are, {FILE} beside the shards must name the classes"


def is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal()


def _counts(text: str) -> bool:
    return is_number(text) and len(text.lstrip("0")) < 8 and int(text) < MOST


def _order(text: str) -> tuple[bool, int, str]:
    """Ids by their size, then names by the alphabet."""
    return not is_number(text), len(text) if is_number(text) else 0, text

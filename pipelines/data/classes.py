"""Class numbers and names from the labels of a whole data set."""

from collections import Counter
from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from selfsup.errors import DataError
from selfsup.pipelines.data import storage
from selfsup.pipelines.data.labels import NULL_WORDS, UNSURE, decode_text

NAMES_FILE = "classnames.txt"  # beside the shards, a name per line, as CLIP's benchmarks have it
MAX_CLASSES = 2**20  # a greater number is an identifier, and taken for a name


def read_names(root: str) -> tuple[str, ...]:
    """Return the class names beside the shards, () without such a file. Empty lines at its end are ignored."""
    if NAMES_FILE not in storage.list_files(root, suffix=".txt"):
        return ()
    lines = decode_text(storage.read(root, NAMES_FILE, remedy="")).rstrip().splitlines()
    return tuple(line.strip() for line in lines)


def label_kind(labels: Mapping[str, list[str]], samples: int, known: tuple[str, ...]) -> str:
    """Return the kind of members to take labels from: the sure ones, or else plausible numbers in others."""
    sure = any(text in known or text.casefold() not in NULL_WORDS for text in labels["label"])
    unsure = (kind for kind in UNSURE if kind in labels and plausible(labels[kind], samples, known))
    return "label" if sure else next(unsure, "label")


def number_classes(labels: list[str], known: tuple[str, ...]) -> tuple[NDArray[np.int32], tuple[str, ...]]:
    """(n,) distinct labels -> (n,) class numbers, -1 for no label; and the names of all classes.

    Labels that are all numbers are class numbers. Raises DataError for a label that is none of the `known` classes.
    """
    named = dict(zip(known, range(len(known)), strict=True))
    used = [text for text in labels if text and (text in named or text.casefold() not in NULL_WORDS)]
    if all(_is_class_number(text) for text in used) and not (known and all(text in named for text in used)):
        number = {text: int(text) for text in used}
        classes = known or tuple(map(str, range(max(number.values(), default=-1) + 1)))
    else:
        classes = known or tuple(sorted(used, key=_order))
        number = named or {text: place for place, text in enumerate(classes)}
    if unknown := [text for text in sorted(used) if number.get(text, MAX_CLASSES) >= len(classes)]:
        raise DataError(
            f"label {unknown[0]!r} is none of {len(classes)} classes; {NAMES_FILE} beside the shards names them"
        )
    if number is named and (doubles := [text for text, uses in Counter(known).items() if uses > 1 and text in used]):
        raise DataError(f"label {doubles[0]!r} is the name of two classes in {NAMES_FILE}; make them different")
    return np.array([number.get(text, -1) for text in labels], np.int32), classes


def plausible(labels: list[str], samples: int, known: tuple[str, ...]) -> bool:
    """Return whether numbers, one per sample, can be classes: small, and shared by samples. "" is no label."""
    numbers = {int(text) if _is_class_number(text) else MAX_CLASSES for text in labels if text}
    return bool(numbers) and len(numbers) < samples and max(numbers) < (len(known) or samples - 1)


def remarks(labels: Mapping[str, list[str]], kind: str, samples: int, known: tuple[str, ...]) -> Iterator[str]:
    """Yield remarks on ambiguous labels: ignored ones that may be meant as labels, and the reverse.

    kind: of the members that labels were taken from.
    """
    words = [text for text in labels[kind] if text.casefold() in NULL_WORDS and text not in known]
    if words:
        yield f"{words[0]!r} counts as no label; if it names a class, list it in {NAMES_FILE} beside the shards"
    used = [text for text in labels[kind] if text and text not in words]
    named = [text for text in used if not is_number(text)]
    if named and len(named) < len(used) and not known:
        yield f"labels are partly numbers, partly names such as {named[0]!r}: all are taken for names"
    for other in UNSURE:
        numbers = [text for text in labels.get(other, ()) if text]
        if not used and numbers:
            example = f"numbers in .{other}, such as {max(numbers, key=_order)[:20]} in {samples} samples"
            yield f"{example}, are not taken for labels; if they are, name classes in {NAMES_FILE} beside the shards"


def is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal()


def _is_class_number(text: str) -> bool:
    return is_number(text) and len(text.lstrip("0")) < 8 and int(text) < MAX_CLASSES


def _order(text: str) -> tuple[bool, int, str]:
    """Return a sort key: identifiers by their size, then names by the alphabet."""
    return not is_number(text), len(text) if is_number(text) else 0, text

"""Records of the validation images that a protocol had right, for the uncertainty that images add to a report."""

import base64
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from selfsup.evaluator import Hits, Score
from selfsup.stage import write_json

NAME = "images.json"


class HitRecord(NamedTuple):
    """The hits of an evaluation. images: a digest of the M images scored. right: name of the accuracy -> (M,) bool."""

    images: str
    right: Mapping[str, Hits]


def identity(data: str, label: NDArray[np.int64]) -> str:
    """Return a digest of the labelled samples of a data set that could be decoded. data: the digest of the data set."""
    return hashlib.blake2b(data.encode() + label.tobytes(), digest_size=6).hexdigest()


def save(folder: Path, images: str, scores: Mapping[str, Score]) -> None:
    """Write the hits among scores to the file NAME in a folder, atomically."""
    right = {name: score for name, score in scores.items() if isinstance(score, np.ndarray)}
    packed = {name: [len(hits), base64.b64encode(np.packbits(hits).tobytes()).decode()] for name, hits in right.items()}
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / NAME, {"images": images, "right": packed})


def read(data: bytes) -> HitRecord | None:
    """Return what `save` wrote to a file with this content; None for any other content."""
    try:
        content = json.loads(data)
        right = {name: _unpacked(number, bits) for name, (number, bits) in content["right"].items()}
        return HitRecord(str(content["images"]), right)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _unpacked(number: int, bits: str) -> Hits:
    """Return `number` packed bits as booleans. Raises ValueError where there are fewer."""
    hits = np.unpackbits(np.frombuffer(base64.b64decode(bits, validate=True), np.uint8))[:number].astype(bool)
    if len(hits) != number:
        raise ValueError(f"{len(hits)} bits, not {number}")
    return hits

"""Coding of files as members of shards."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Coding:
    """A coding of files as members of shards: unchanged, if they can be read. modality, reading: of the members."""

    modality: Any
    reading: Any

    @property
    def settings(self) -> str:
        """Return all that the bytes depend on but the file."""
        return f"{type(self.modality).__name__}({self.reading})"

    def inspect(self, paths: Sequence[Path]) -> list[str]:  # noqa: ARG002
        """Return advice on options. Raises DataError where files contradict how they are read."""
        return []

    def encode(self, path: Path) -> tuple[str, bytes]:
        """Return suffix and bytes of a file as a member of a shard. Raises DecodeError."""
        data = path.read_bytes()
        self.modality.check(data, self.reading)
        return self.modality.suffix(path.name), data

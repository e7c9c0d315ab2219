"""The trained encoder of a run, or in a file, with all that is known of how its samples are prepared."""

from pathlib import Path
from typing import Any, NamedTuple

from selfsup import pretrained
from selfsup.errors import CheckpointError
from selfsup.homes import fetch, pull
from selfsup.mirror_index import inputs
from selfsup.pipelines.data import bundled, manifest
from selfsup.pretrained import PretrainedEncoder, assembled
from selfsup.saved import SavedEncoder, read_encoder
from selfsup.stage import read_json, record

SUFFIX = ".safetensors"


class TrainedEncoder(NamedTuple):
    """name: the id of the run, or the stem of the file. notes: what a run knows beyond the file's metadata."""

    name: str
    path: Path
    notes: tuple[tuple[str, str], ...] = ()

    @property
    def saved(self) -> SavedEncoder:
        """Return what is in the file, read anew."""
        saved = read_encoder(self.path)
        return saved._replace(metadata={**saved.metadata, **dict(self.notes)})

    def load(self, crop: float | None = None) -> PretrainedEncoder:
        """Return the encoder. crop and errors as of `load_encoder`."""
        return assembled(self.saved, self.path, crop)


def find(home: Path, source: str) -> TrainedEncoder:
    """Return the encoder of a finished run, by its id, or in a file. Raises CheckpointError where there is none."""
    if source.endswith(SUFFIX) or Path(source).is_file():
        return TrainedEncoder(Path(source).stem, Path(source).absolute())
    pull(home)
    path = _of_run(home, source)
    run = read_json(record(home, source)).get("run")
    try:
        notes = _notes(home, read_encoder(path), run) if run else {}
    except CheckpointError as error:
        raise CheckpointError(f"{error}; remove {path.parent} and run its spec again") from error
    return TrainedEncoder(source, path, tuple(notes.items()))


def _notes(home: Path, saved: SavedEncoder, run: dict[str, Any]) -> dict[str, str]:
    """Return the crop of a run's evaluations, and of an encoder of an earlier version what its data say."""
    notes = {pretrained.CROP: str(run["embed"]["crop"])}
    if pretrained.STATS not in saved.metadata:
        fields = manifest.load(bundled.resolve(run["data"]["train"], home)).fields
        notes |= pretrained.notes("image", fields["image"])
    return notes


def _of_run(home: Path, run_id: str) -> Path:
    note = record(home, run_id)
    known = sorted(path.stem for path in note.parent.glob("*.json"))
    if run_id not in known:  # nor is a path one
        raise CheckpointError(f"no run {run_id} under {home}; there are: {', '.join(known) or 'none yet'}")
    key: str | None = read_json(note, pretrain=str | None)["pretrain"]
    if key is None:
        raise CheckpointError(f"{run_id} is a baseline: it has no trained encoder")
    path = home / "stages" / key / f"encoder{SUFFIX}"
    fetch([path.parent], inputs)
    if not path.exists():
        raise CheckpointError(f"{run_id} has not finished training: run its spec again first")
    return path

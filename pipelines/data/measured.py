"""Mean and deviation of a data set at other settings of `input` than those that its manifest holds them at."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from selfsup import modality
from selfsup.knob import Knobs
from selfsup.pipelines.data.manifest import Manifest
from selfsup.pipelines.data.shards import statistics
from selfsup.progress import say
from selfsup.stage import digest
from selfsup.whole import write


def stats(manifest: Manifest, name: str, knobs: Knobs, home: Path) -> Any:
    """Return the Stats by which samples are normalized: the manifest's, or measured at the settings of `input`.

    name, knobs: of a modality. home: where those are kept, so that a data set is measured once for each setting.
    """
    known, kind = manifest.reading(name), modality.load(name)
    reading = kind.unmeasured(known, knobs)
    if reading is None:
        return known
    path = home / "statistics" / f"{digest([manifest.digest, name, reading.model_dump(mode='json')])}.json"
    if not path.exists():
        say(f"{manifest.root}: measuring mean and deviation of its {kind.values} at {reading}, once")
        moments = statistics(replace(manifest, fields={**manifest.fields, name: reading}), name, say)
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path, moments.model_dump_json())
    return kind.Stats.model_validate_json(path.read_text())

"""Ids of runs and keys of stages of every shipped spec: finished work is found again, whatever became of the code."""

import json
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import pyarrow as pa
import pytest

from selfsup.pipelines import chain, kinds
from selfsup.pipelines.data.manifest import Manifest
from selfsup.pipelines.modalities.audio import AudioStats
from selfsup.pipelines.modalities.image import ImageStats
from selfsup.pipelines.modalities.points import PointsStats
from selfsup.pipelines.modalities.video import VideoStats
from selfsup.pipelines.planned import PlannedRun
from selfsup.predecessor import SECTIONS
from selfsup.spec import BASELINES, Run, run_type, used
from selfsup.sweeps.spec.sweepfile import read

ROOT = Path(__file__).parent.parent
FILES = [*ROOT.glob("pipelines/*/*.yaml"), *ROOT.glob("sweeps/*.yaml")]
SPECS = sorted(path for path in FILES if path.stem != "common")
KNOWN = json.loads((ROOT / "tests" / "ids.json").read_text())
DATA = Manifest(
    home="/data",
    root="/data",
    digest="d1",
    rows_digest="r1",
    num_samples=1_281_167,
    num_labelled=1_281_167,
    members=("jpg", "cls"),
    classes=tuple(f"{number:04d}" for number in range(1000)),
    fields={
        "image": ImageStats(mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25)),
        "audio": AudioStats(mean=-4.0, std=4.0),
        "video": VideoStats(mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25)),
        "points": PointsStats(channels=3, mean=(0, 0, 0), std=(1, 1, 1)),
    },
    shards=pa.table({}),
)


@pytest.mark.parametrize("path", SPECS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_ids_and_keys_of_shipped_specs_stay(path: Path) -> None:
    assert ids(path) == KNOWN[str(path.relative_to(ROOT))]


def ids(path: Path) -> dict[str, list[str]]:
    """Run id -> keys of its stages: the first seed of every arm and its baselines, on data with a known digest."""
    home = Path("/home")
    before = ((run, chain.before(run, DATA, home, lambda _: DATA)) for run in listed(path))
    with patch.object(kinds, "check_beside"):  # of earlier trainings: there are no samples to try
        runs = [PlannedRun(run, "spec", DATA, DATA, home, before=first) for run, first in before]
    return {run.id: [stage.key for stage in run.stages] for run in runs}


def listed(path: Path) -> Iterator[Run]:
    for design in read(path, ["data={train: /data, val: /data}"]).designs:
        for setting in design.settings:
            run = setting.spec.runs[0]
            yield run
            for name in BASELINES:
                own = "hyper", "method", *SECTIONS
                shared = {key: value for key, value in run.model_dump().items() if key not in own}
                yield run_type(name, *used(shared)).model_validate(shared | {"method": name})

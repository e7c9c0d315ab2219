"""What a trial costs beside its training: a sweep of 200 trials of one step each, and where their seconds go.

    python tests/benchmarks/overhead.py [TRIALS]

The objective is SimCLR on a ViT of one block at 32 pixels with batches of 8: milliseconds. So what is measured is ours,
Ray's and MLflow's. Two trials run side by side; the seconds are a trial's own.
"""

import json
import os
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from statistics import mean, median
from typing import Any

import numpy as np
import yaml
from PIL import Image

from selfsup.pipelines.data.pack import pack
from selfsup.pipelines.planned import PlannedRun
from selfsup.stage import record
from selfsup.sweeps import reports, session
from selfsup.sweeps.recorder import Recorder
from selfsup.sweeps.spec import sweepfile
from selfsup.sweeps.spec.expand import expand
from selfsup.track import store

SEEDS = 2
Spans = dict[str, list[float]]


def main(trials: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {"SELFSUP_HOME": f"{folder}/home", "OMP_NUM_THREADS": "1"}
        home, spec = Path(folder, "home"), spec_of(Path(folder), trials)
        spans: Spans = defaultdict(list)
        marks = watched(spans)
        began = time.monotonic()
        arms, planned = expand(sweepfile.read(spec), home)
        planning = time.monotonic() - began
        began = time.monotonic()
        _, failed = session.conduct(sweepfile.read(spec), store())
        whole = time.monotonic() - began
        assert not failed
        for each in planned.values():
            note(spans, each, marks[each.id])
        began = time.monotonic()
        reports.write(arms, store())
        report = time.monotonic() - began
    print(f"{len(planned)} trials in {whole:.0f} s, {whole / len(planned):.2f} s a trial of the clock")
    print(f"planning {1000 * planning / len(planned):.1f} ms a trial; the report {report:.1f} s")
    print(f"{'of one trial, in seconds':<44}{'median':>8}{'mean':>8}")
    for name, seconds in spans.items():
        print(f"{name:<44}{median(seconds):8.3f}{mean(seconds):8.3f}")


def spec_of(folder: Path, trials: int) -> Path:
    draw = np.random.default_rng(0)
    for split in ("train", "val"):
        for each in range(16):
            path = folder / split / "ab"[each % 2] / f"{each}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(draw.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(path)
        pack(folder / split, folder / f"{split}-shards")
    told = {
        "name": "overhead",
        "method": "simclr",
        "data": {split: str(folder / f"{split}-shards") for split in ("train", "val")},
        "backbone": {
            "name": "vit_tiny_patch16_224",
            "image_size": 32,
            "patch_size": 8,
            "width": 32,
            "depth": 1,
            "heads": 2,
        },
        "train": {"duration": {"steps": 1}, "batch": 8},
        "evals": {"knn": {"k": 3}},
        "baselines": False,
        "resources": {"cpus_per_worker": 0.9, "data_cpus": 0.1},
        "ablate": {"hyper.temperature": [round(0.1 + 0.001 * each, 3) for each in range(trials // SEEDS)]},
        "seeds": SEEDS,
    }
    path = folder / "overhead.yaml"
    path.write_text(yaml.safe_dump(told))
    return path


def watched(spans: Spans) -> dict[str, dict[str, float]]:
    """When the driver saw each run begin and end; MLflow's calls are timed on the way."""
    marks: dict[str, dict[str, float]] = defaultdict(dict)

    def watch(name: str, method: Callable[..., None]) -> Callable[..., None]:
        def call(self: Recorder, each: PlannedRun, *rest: Any) -> None:
            began = marks[each.id][name] = time.time()
            method(self, each, *rest)
            spans[f"MLflow, in the driver, at its {name}"].append(time.time() - began)

        return call

    for name in ("begin", "end"):
        setattr(Recorder, name, watch(name, getattr(Recorder, name)))
    return marks


def note(spans: Spans, each: PlannedRun, marks: dict[str, float]) -> None:
    assert each.pretrain
    performed = record(each.home, each.id).stat().st_mtime
    trained, embedded, scored = (stage.time / 1000 for stage in (each.pretrain, each.embeds["knn"], each.probes["knn"]))
    told = json.loads((each.pretrain.folder / "done.json").read_text())["result"]
    spans["Tune: a trial's process until it performs"].append(performed - marks["begin"])
    spans["Train: launch to the end of the first step"].append(told["start_seconds"])
    for part in ("ray", "model", "data"):
        spans[f"   of it {part}"].append(told[f"start_seconds_{part}"])
    spans["Train: from there to its end"].append(trained - performed - told["start_seconds"])
    spans["embed (Ray Data)"].append(embedded - trained)
    spans["kNN (a task)"].append(scored - embedded)
    spans["Tune: the result until the driver has it"].append(marks["end"] - scored)
    spans["all"].append(marks["end"] - marks["begin"])


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200)

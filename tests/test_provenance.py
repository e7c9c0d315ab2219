"""The command of a run must make that very run again."""

import shlex
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from toy_sweep import study, sweep

from selfsup.pipelines.data.manifest import Manifest
from selfsup.sweeps.report.provenance import command, settings
from selfsup.sweeps.report.tables import ablation
from selfsup.sweeps.spec.expand import expand
from selfsup.sweeps.spec.sweepfile import read

STUDIES = {
    "name": "both",
    "seeds": 2,
    "train": {"duration": {"steps": 4}, "batch": 8},
    "evals": {"knn": {"k": 3}},
    "studies": [
        {"method": "mae", "ablate": {"hyper.mask_ratio": [0.5, 0.9]}},
        {"method": "simclr", "grid": {"hyper.temperature": [0.1, 0.2], "train.batch": [8, 16]}},
    ],
}


@pytest.mark.parametrize("overrides", [(), ("seeds=[3, 5]", "train.duration={samples: 64}")])
def test_the_command_of_every_run_names_it_in_the_same_plan(
    overrides: tuple[str, ...], make: object, tmp_path: Path
) -> None:
    assert callable(make)
    held: Manifest = make(tmp_path / "set", number=32)
    path = tmp_path / "a sweep.yaml"
    path.write_text(yaml.safe_dump(STUDIES | {"data": {"train": held.root, "val": held.root}}))
    sweep, planned = expand(read(path, overrides), tmp_path)
    assert len(planned) == 2 * (3 + 4 + 2)  # the arms of MAE, of SimCLR, and both baselines
    for key in planned:
        name, verb, spec, *told = shlex.split(command(sweep, key))
        assert (name, verb, told[-2:]) == ("selfsup", "sweep", ["--only", key])
        given = tuple(told[1:-2:2])
        assert told[:-2:2] == ["-s"] * len(given)
        assert (spec, given) == (str(path), overrides)
    again, same = expand(read(Path(spec), given), tmp_path)
    assert (again.digest, same.keys()) == (sweep.digest, planned.keys())


def test_settings_that_audio_does_not_heed_are_not_shown_of_it() -> None:
    one, results = study({"0.75, 8": [1.0, 2.0]})
    images = {"backbone.image_size": "48", "embed.crop": "0.875", "embed.batch": "256"}
    for kind, idle in (("", set()), ("input.audio.frames", {"backbone.image_size", "embed.crop"})):
        params = images | ({kind: "512"} if kind else {})
        found = [replace(run, params=dict(run.params) | params) for run in results]
        [(name, shown)] = settings(ablation(sweep(one), found))
        assert name == "mae"
        assert params.keys() - shown.keys() == idle

"""`search: auto` of every objective: what its knobs' own ranges draw, and a search in them on a real Ray."""

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
from optuna.samplers import RandomSampler
from small import briefly_taught, of_images

from selfsup.errors import SpecError
from selfsup.knob import knob_lines
from selfsup.method import load
from selfsup.pipelines.cost import cost
from selfsup.pipelines.data import manifest
from selfsup.pipelines.data.manifest import Manifest
from selfsup.pipelines.planned import PlannedRun
from selfsup.spec import run_type
from selfsup.sweeps.report import files
from selfsup.sweeps.search import ProposedRuns, TrialSpace
from selfsup.sweeps.session import conduct
from selfsup.sweeps.spec.sweepfile import read
from selfsup.track import Tracker

RECIPES = Path(__file__).parent.parent.parent / "pipelines" / "photos"
KNN = "eval/knn/top1"


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory, make: Callable[..., Manifest]) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("sets")
    return {name: make(folder / name, number=number).root for name, number in (("train", 320), ("val", 16))}


@pytest.fixture
def photographs(sets: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """As many samples as the bundled photographs are."""
    many = replace(manifest.load(sets["train"]), num_samples=4000)
    monkeypatch.setattr("selfsup.pipelines.planning.load", lambda *_: many)
    monkeypatch.setattr("selfsup.pipelines.data.bundled.resolve", lambda url, _: url)


@pytest.mark.usefixtures("photographs")
@pytest.mark.parametrize("name", of_images())
def test_what_an_objective_draws_from_its_own_ranges_can_be_trained_or_is_refused(name: str, tmp_path: Path) -> None:
    """Together, all that have a range: the method's own and those of encoder, optimizer, batch and kNN, on images."""
    lines = [
        line for line in knob_lines(run_type(name)) if line.sweep and not line.path.startswith(("input.", "towers."))
    ]
    searched = [line.path for line in lines if not line.path.startswith("evals.") or line.path.startswith("evals.knn.")]
    (path := tmp_path / "auto.yaml").write_text(f"extends: {RECIPES / name}.yaml\nsearch: {{metric: {KNN}}}\n")
    it = read(path, [f"{knob}={{search: auto}}" for knob in searched])
    [design] = it.designs
    assert {line.path for line in design.space} == set(searched) > {"optim.lr", "optim.weight_decay"}
    assert any(knob.startswith("hyper.") for knob in searched)
    study, plans = optuna.create_study(sampler=RandomSampler(seed=0)), ProposedRuns(it.designs, tmp_path)
    sound, refused = list[PlannedRun](), list[str]()
    for _ in range(10):
        TrialSpace(it.designs)(trial := study.ask())
        try:
            sound.append(plans.of(trial.params))
        except SpecError as error:
            refused.append(str(error))
    assert len(sound) >= 5
    known = r"_min\) exceeds the maximum|clusters, but .* holds 4000|blocks has no . last ones"
    assert all(re.search(known, line) for line in refused)
    assert all(load(name).views(each.run.hyper) for each in sound)
    assert math.isfinite(cost(sound[0].run, sound[0].info).flops)


@pytest.fixture(scope="module")
def tracker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tracker]:
    """In a home of its own."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SELFSUP_HOME", str(home))
        yield Tracker(f"sqlite:///{home / 'mlflow.db'}").connect()


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize("name", of_images())
def test_an_objective_is_searched_in_its_own_ranges(
    name: str, sets: dict[str, str], tracker: Tracker, tmp_path: Path
) -> None:
    searched = [line.path for line in knob_lines(run_type(name)) if line.sweep and line.path.startswith("hyper.")]
    (path := tmp_path / "auto.yaml").write_text(
        f"extends: {RECIPES / name}.yaml\nsearch: {{metric: {KNN}, sampler: random, trials: 2, confirm: 1}}\n"
    )
    steps = 25 if "hyper.clusters" in searched else 4  # labels are found after an epoch of 20
    changes = [f"name={name}", *(f"data.{split}={url}" for split, url in sets.items()), "baselines=false"]
    changes += [f"train.duration={{steps: {steps}}}", "train.batch=16", "optim.warmup=null"]
    changes += [f"{knob}={{search: auto}}" for knob in searched] + briefly_taught(RECIPES / f"{name}.yaml", tmp_path)
    arms, failed = conduct(read(path, changes), tracker)
    assert failed == []
    found = files.read(arms, tracker)
    assert found.sweep.search
    assert found.sweep.search.over
    assert [trial.result.status for trial in found.sweep.search.trials] == ["done"] * 2
    assert all(set(trial.values) == set(searched) for trial in found.sweep.search.trials)
    assert len(found.results) in (1, 2)  # the best, from a fresh seed, beside the recipe unless it is the recipe
    assert all(0 <= result.metrics[KNN] <= 100 for result in found.results)

"""Every objective takes the whole path for a few steps: shards, two training workers on Ray, a resume, evaluations."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from small import briefly_taught

from selfsup.metrics_log import records
from selfsup.pipelines.cluster import slot
from selfsup.pipelines.data import scenes, solids, sounds
from selfsup.pipelines.data.manifest import Manifest
from selfsup.pipelines.data.scenes import impacts, mixed, motions
from selfsup.pipelines.objective import ENCODER, METHOD
from selfsup.pipelines.planned import PlannedRun
from selfsup.pipelines.planning import plan
from selfsup.pipelines.stages.runner import perform
from selfsup.spec import read

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("cluster")]
RECIPES = Path(__file__).parent.parent.parent / "pipelines"
STEPS, MIDDLE, BATCH = 6, 3, 32  # an epoch ends after the fourth step
SETS = {
    scenes: 1,
    motions: 1,
    impacts: 1,
    solids: len(solids.SOLIDS),
    sounds: len(sounds.CLASSES),
}  # samples counted as 1
NUMBER = {"train": 128, "val": 16}
BRIEFLY = {  # evaluations that train
    "depth": ("epochs=1", "steps=10"),
    "segment_linear": ("iterations=5",),
}
OTHERS = [own.__name__.rpartition(".")[2] for own in SETS]  # folders of recipes


def recipes(*folders: str) -> pytest.MarkDecorator:
    """Return a parameter: the files of all recipes in folders."""
    paths = [path for folder in folders for path in sorted((RECIPES / folder).glob("*.yaml")) if path.stem != "common"]
    return pytest.mark.parametrize("recipe", paths, ids=lambda path: f"{path.parent.name}/{path.stem}")


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory, make: Callable[..., Manifest]) -> dict[str, str]:
    root = tmp_path_factory.mktemp("sets")
    return {split: make(root / split, number=NUMBER[split], seed=seed).root for seed, split in enumerate(NUMBER)}


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return a home in which bundled data sets are small, and a slot may be left to the next test."""
    with pytest.MonkeyPatch.context() as patch:
        for own, samples in {**SETS, mixed: 1}.items():
            patch.setattr(own, "NUMBER", {split: -(-number // samples) for split, number in NUMBER.items()})
        yield tmp_path_factory.mktemp("home")
    slot.close_idle()


def trained(recipe: Path, changes: list[str], folder: Path, home: Path) -> PlannedRun:
    """Return a run of a recipe by two workers, for a few steps, of which other processes repeat the second half."""
    changes = [*changes, f"train.duration={{steps: {STEPS}}}", f"train.batch={BATCH}", "train.log_every=2", "seeds=1"]
    changes += ["optim.warmup=null", "resources={workers: 2, cpus_per_worker: 0.5}", "baselines=false"]
    changes += ["stream.lanes=4", "stream.chunk=2", "stream.mix=2", *briefly_taught(recipe, folder)]
    [run] = plan(read(recipe, [*changes, f"train.checkpoint_every={MIDDLE}"]), home)
    perform(run)
    assert run.done
    (weights, losses), checkpoint = outcome(run), cut_off(run)
    assert not run.done
    assert [*losses] == [2, 4, STEPS]
    written = checkpoint.stat().st_mtime_ns
    perform(run, keep_slot=True)
    assert checkpoint.stat().st_mtime_ns == written, "it began anew"
    others, again = outcome(run)
    assert again == losses
    assert weights.keys() == others.keys()
    assert [name for name, weight in weights.items() if not weight.equal(others[name])] == []
    return run


def outcome(run: PlannedRun) -> tuple[dict[str, torch.Tensor], dict[int, float]]:
    """Return all weights that training ends with, and its losses by step."""
    assert run.pretrain
    losses = {record.step: record.values["loss"] for record in records(run.pretrain.spool)}
    return load_file(run.pretrain.folder / METHOD), losses


def cut_off(run: PlannedRun) -> Path:
    """Leave of a training what a kill after its last step does; return the file that it goes on from."""
    assert run.pretrain
    folder, spool = run.pretrain.folder, run.pretrain.spool
    for name in ("done.json", "summary.json", "hardware.txt", ENCODER, METHOD):
        (folder / name).unlink()
    shutil.rmtree(folder / f"checkpoint_{STEPS:09d}")
    log = spool.read_text()
    spool.write_text(log[: log.index(f'{{"commit":{STEPS},')])
    return folder / f"checkpoint_{MIDDLE:09d}" / "state.pt"


@recipes("photos", "digits")
def test_an_objective_trains_on_two_workers_goes_on_exactly_and_is_evaluated(
    recipe: Path, sets: dict[str, str], few: Path, tmp_path: Path
) -> None:
    run = trained(recipe, [f"data.{split}={url}" for split, url in sets.items()], tmp_path, few)
    assert 0 <= run.probes["knn"].result()["top1"] <= 100


@recipes(*OTHERS)
def test_so_does_one_of_other_data(recipe: Path, few: Path, tmp_path: Path) -> None:
    short = [
        f"evals.{name}.{change}" for name in BRIEFLY if getattr(read(recipe).evals, name) for change in BRIEFLY[name]
    ]
    run = trained(recipe, short, tmp_path, few)
    assert {*run.probes} == {*run.evals} != set()
    for name, stage in run.probes.items():
        scores = stage.result()
        for metric, scale in run.evals[name].metrics.items():
            if (score := scores.get(metric.rpartition("/")[2])) is not None:
                low, high = scale.ends
                assert low <= score <= high, metric
            else:
                assert not scale.headline, metric

"""Every objective takes the whole path: shards, two training workers on Ray, its evaluations; a few steps of each."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from small import briefly_taught, of_images

from selfsup.metrics_log import tail
from selfsup.pipelines.data import scenes, solids, sounds
from selfsup.pipelines.data.manifest import Manifest
from selfsup.pipelines.data.scenes import impacts, mixed, motions
from selfsup.pipelines.planned import PlannedRun
from selfsup.pipelines.planning import plan
from selfsup.pipelines.stages.runner import perform
from selfsup.spec import read

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("cluster")]
RECIPES = Path(__file__).parent.parent.parent / "pipelines"
STEPS = 6
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
OTHERS = [
    path
    for own in SETS
    for path in sorted((RECIPES / own.__name__.rpartition(".")[2]).glob("*.yaml"))
    if path.stem != "common"
]


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory, make: Callable[..., Manifest]) -> dict[str, str]:
    root = tmp_path_factory.mktemp("sets")
    return {split: make(root / split, number=NUMBER[split], seed=seed).root for seed, split in enumerate(NUMBER)}


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return a home in which bundled data sets are small."""
    with pytest.MonkeyPatch.context() as patch:
        for own, samples in {**SETS, mixed: 1}.items():
            patch.setattr(own, "NUMBER", {split: -(-number // samples) for split, number in NUMBER.items()})
        yield tmp_path_factory.mktemp("home")


def trained(recipe: Path, changes: list[str], folder: Path, home: Path) -> PlannedRun:
    """Return a run of a recipe by two workers, for a few steps."""
    changes = [*changes, f"train.duration={{steps: {STEPS}}}", "train.batch=16", "train.log_every=2", "seeds=1"]
    changes += ["optim.warmup=null", "resources={workers: 2, cpus_per_worker: 0.5}", "baselines=false"]
    changes += ["stream.lanes=4", "stream.chunk=2", "stream.mix=2", *briefly_taught(recipe, folder)]
    [run] = plan(read(recipe, changes), home)
    perform(run)
    assert run.done
    assert run.pretrain
    last = tail(run.pretrain.spool)
    assert last
    assert last.step == STEPS
    return run


@pytest.mark.parametrize("name", of_images())
def test_an_objective_trains_on_two_workers_and_is_evaluated(name: str, sets: dict[str, str], tmp_path: Path) -> None:
    data = [f"data.{split}={url}" for split, url in sets.items()]
    run = trained(RECIPES / "photos" / f"{name}.yaml", data, tmp_path, tmp_path)
    assert 0 <= run.probes["knn"].result()["top1"] <= 100


@pytest.mark.parametrize("recipe", OTHERS, ids=lambda path: f"{path.parent.name}/{path.stem}")
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

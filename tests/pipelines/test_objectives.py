"""Every objective takes the whole path: shards, two training workers on Ray, its evaluations; a few steps of each."""

from collections.abc import Callable
from pathlib import Path

import pytest
from small import briefly_taught, of_images

from selfsup.metrics_log import tail
from selfsup.pipelines.data.manifest import Manifest
from selfsup.pipelines.planning import plan
from selfsup.pipelines.stages.runner import perform
from selfsup.spec import read

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("cluster")]
RECIPES = Path(__file__).parent.parent.parent / "pipelines" / "photos"
STEPS = 6


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory, make: Callable[..., Manifest]) -> dict[str, str]:
    root = tmp_path_factory.mktemp("sets")
    return {"train": make(root / "train", number=128).root, "val": make(root / "val", number=16, seed=1).root}


@pytest.mark.parametrize("name", of_images())
def test_an_objective_trains_on_two_workers_and_is_evaluated(name: str, sets: dict[str, str], tmp_path: Path) -> None:
    changes = [f"data.{split}={url}" for split, url in sets.items()]
    changes += [f"train.duration={{steps: {STEPS}}}", "train.batch=16", "train.log_every=2", "optim.warmup=null"]
    changes += ["resources={workers: 2, cpus_per_worker: 0.5}", "stream.lanes=4", "seeds=1", "baselines=false"]
    changes += briefly_taught(recipe := RECIPES / f"{name}.yaml", tmp_path)
    [each] = plan(read(recipe, changes), tmp_path)
    perform(each)
    assert each.done
    assert each.pretrain
    last = tail(each.pretrain.spool)
    assert last
    assert last.step == STEPS
    assert 0 <= each.probes["knn"].result()["top1"] <= 100

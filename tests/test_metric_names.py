"""`samples_per_second` was `images_per_second`: what was recorded or written under the first name is read."""

from collections.abc import Callable
from pathlib import Path

import pytest
import toy_sweep

from selfsup.metrics_log import tail
from selfsup.pipelines.data.manifest import Manifest
from selfsup.pipelines.planning import plan
from selfsup.stage import digest
from selfsup.sweeps.report.compare import compare
from selfsup.sweeps.report.paper import markdown
from selfsup.sweeps.report.results import find, gather
from selfsup.sweeps.report.tables import ablation
from selfsup.sweeps.spec import sweepfile
from selfsup.sweeps.spec.confirm import search_key
from selfsup.sweeps.spec.search import Search
from selfsup.sweeps.spec.sweep import Sweep
from selfsup.track import Tracker

OLD, NEW = "pretrain/images_per_second", "pretrain/samples_per_second"
SPEC = """\
name: toy
method: mae
data: {{train: {data}, val: {data}}}
train: {{duration: {{steps: 1}}, batch: 8}}
evals: {{knn: {{k: 3}}}}
hyper: {{mask_ratio: {{search: [0.5, 0.75]}}}}
search: {{metric: {metric}, scheduler: asha, seed: 7}}
"""


@pytest.fixture(scope="module")
def tracker(tmp_path_factory: pytest.TempPathFactory, local_store: Callable[[Path], Tracker]) -> Tracker:
    return local_store(tmp_path_factory.mktemp("home"))


def record(tracker: Tracker, sweep: Sweep, key: str, rates: dict[str, list[tuple[int, float]]]) -> None:
    """Record a finished run with rates at steps, by the name of the metric."""
    opened = tracker.open(id=key, name=key, experiment=sweep.name, params={}, tags={})
    for name, points in rates.items():
        for step, rate in points:
            tracker.metrics(opened, {name: rate}, step=step, time=1000 * step)
    tracker.finish(opened, "FINISHED")


def test_an_old_store_has_its_rates_in_results_curves_comparisons_and_tables(tracker: Tracker, tmp_path: Path) -> None:
    study, _ = toy_sweep.study({"0.75, 8": [70.0]})
    sweep = Sweep("old", "", "toy.yaml", "5eed", (0, 1), ("eval/knn/top1",), (study,))
    old, new = (study.arms[0].ids[0], "continued")
    record(tracker, sweep, old, {OLD: [(1, 100.0), (2, 120.0)]})
    record(tracker, sweep, new, {OLD: [(1, 100.0)], NEW: [(2, 150.0)]})
    assert [result.metrics for result in find(tracker, [old, new])] == [{NEW: 120.0}, {NEW: 150.0}]
    for _ in range(2):  # from MLflow, then from the cache
        [result, *_] = gather(tracker, sweep, curves=[NEW], cache=tmp_path)
        assert result.metrics == {NEW: 120.0}
        assert result.curves == {NEW: [(1, 100.0), (2, 120.0)]}
    [run] = tracker.search_runs(f"tags.`selfsup.id` = '{new}'")
    assert tracker.history(run.info.run_id, NEW) == [(1, 100.0), (2, 150.0)]
    lines = [line.split() for line in compare(*find(tracker, [old, new])).splitlines()]
    assert [NEW, "120", "150", "(+30)"] in lines
    assert "| samples/s |" in markdown(ablation(sweep, [result]))


def test_an_old_log_of_a_run_is_read(tmp_path: Path) -> None:
    (tmp_path / "log").write_text('{"step": 4, "time": 7, "values": {"images_per_second": 90.0, "loss": 1.0}}\n')
    record = tail(tmp_path / "log")
    assert record
    assert record.values == {"samples_per_second": 90.0, "loss": 1.0}


@pytest.mark.parametrize("metric", [OLD, NEW, f"max {OLD}"])
def test_a_search_by_the_old_name_is_the_search_that_it_was(
    tmp_path: Path, make: Callable[..., Manifest], metric: str
) -> None:
    (tmp_path / "s.yaml").write_text(SPEC.format(data=make(tmp_path / "data", number=8).root, metric=metric))
    found = sweepfile.read(tmp_path / "s.yaml")
    assert found.search
    assert (found.search.objectives, found.search.ranking) == ({NEW: "max"}, (NEW, "max"))
    [design] = found.designs
    [run] = plan(design.default.model_copy(update={"baselines": False}), tmp_path)
    space = [["mae", *map(repr, design.space)]]
    assert search_key(found, tmp_path) == digest([[run.id], space, [f"max {OLD}"], "tpe", 7])


def test_a_metric_of_ones_own_evaluation_keeps_its_name() -> None:
    assert Search(metric="max eval/mine/images_per_second").objectives == {"eval/mine/images_per_second": "max"}

"""Spec -> runs, their stages and ids, before anything starts."""

from collections.abc import Sequence
from pathlib import Path
from weakref import WeakValueDictionary

from selfsup.layers import located
from selfsup.pipelines import feasible
from selfsup.pipelines.data import bundled
from selfsup.pipelines.data.fetch import Access
from selfsup.pipelines.data.manifest import Manifest, load
from selfsup.pipelines.planned import PlannedRun
from selfsup.spec import BASELINES, Run, Spec, run_type

_manifests: WeakValueDictionary[tuple[str, Access], Manifest] = WeakValueDictionary()  # of the plans that are held


def plan(spec: Spec, home: Path) -> tuple[PlannedRun, ...]:
    """Every run that the spec asks for, baselines first. Builds bundled data that is missing; starts nothing.

    Raises DataError where a data set has no manifest, and what `feasible` does.
    """
    runs = list(spec.runs)
    train, val = (_manifest(spec, split, home) for split in ("train", "val"))
    assert train
    if spec.baselines:
        runs = [_baseline(run, name) for name in BASELINES for run in runs] + runs
    planned = [PlannedRun(run, spec.name, train, val, home, spec.root) for run in runs]
    with located(spec.root):
        feasible.check(planned[-1])
    return tuple(each for each in planned if each.stages)


def _manifest(spec: Spec, split: str, home: Path) -> Manifest | None:
    if (url := getattr(spec.data, split)) is None:
        return None
    with located(spec.root, f"data.{split}"):
        return _loaded(bundled.resolve(url, home), Access(missing=spec.stream.missing))


def _loaded(url: str, access: Access) -> Manifest:
    """The same one as other runs have, where it is equal: an open file and up to 20 MiB of rows come with each."""
    manifest = load(url, access)
    shared = _manifests.setdefault((url, access), manifest)
    if shared != manifest:
        shared = _manifests[url, access] = manifest
    return shared


def unique(planned: Sequence[PlannedRun]) -> tuple[PlannedRun, ...]:
    """Runs that several specs share (their baselines, as a rule) counted once."""
    return tuple({each.id: each for each in planned}.values())


def _baseline(run: Run, name: str) -> Run:
    told_run = {key: value for key, value in run.model_dump().items() if key != "hyper"}
    return run_type(name).model_validate(told_run | {"method": name})

"""Plans: the runs of a spec with their stages and ids, before anything starts."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from weakref import WeakValueDictionary

from selfsup.errors import SpecError
from selfsup.evaluations import Evaluation, listed
from selfsup.homes import pull
from selfsup.layers import located
from selfsup.pipelines import chain
from selfsup.pipelines.data import answers, bundled
from selfsup.pipelines.data.fetch import ReadOptions
from selfsup.pipelines.data.manifest import Manifest, load
from selfsup.pipelines.data.renaming import renamed
from selfsup.pipelines.planned import PlannedRun, Splits
from selfsup.predecessor import SECTIONS
from selfsup.spec import BASELINES, Run, Spec, run_type, used

_manifests: WeakValueDictionary[tuple[str, ReadOptions], Manifest] = WeakValueDictionary()  # of the plans in memory


def plan(spec: Spec, home: Path) -> tuple[PlannedRun, ...]:
    """Return every run that the spec asks for, baselines first. Builds bundled data that is missing; starts nothing.

    Raises DataError where a data set has no manifest, SpecError where there is nothing to do, and what `chain.check`
    does.
    """
    pull(home)
    runs = list(spec.runs)
    train, val = (
        _manifest(spec, url, f"data.{split}", home)
        for split, url in (("train", spec.data.train), ("val", spec.data.val))
    )
    assert train
    if spec.baselines:
        runs = [_baseline(run, name) for name in BASELINES for run in runs] + runs
    own_data = ((evaluation, _splits(spec, evaluation, train, val, home)) for evaluation in listed(spec.evals).values())
    others = {evaluation.name: splits for evaluation, splits in own_data if splits}
    manifests = partial(_read, spec, home)
    with located(spec.root):
        before = [chain.before(run, train, home, manifests) for run in runs]
        planned = [
            PlannedRun(run, spec.name, train, val, home, spec.root, others=others, before=first)
            for run, first in zip(runs, before, strict=True)
        ]
        chain.check(planned[-1])
        if not planned[-1].stages:
            why = f"{spec.method} trains nothing, and there is no evaluation of it"
            raise SpecError(f"{why}: name one in evals, such as knn: {{}}", "method")
    return tuple(run for run in planned if run.stages)


def _splits(spec: Spec, evaluation: Evaluation, train: Manifest, val: Manifest | None, home: Path) -> Splits | None:
    """Return the data of an evaluation, its own or else the run's, split by split; None where both are the run's."""
    data, place = evaluation.data, f"evals.{evaluation.name}.data"
    train = _manifest(spec, data.train, f"{place}.train", home) or train
    val = _manifest(spec, data.val, f"{place}.val", home) or val
    assert val, f"{evaluation.name} without validation data"
    if data.classes:
        with located(spec.root, f"{place}.classes"):
            val = renamed(val, data.classes)
    if data.answers:
        with located(spec.root, f"{place}.answers"):
            answers.read(data.answers, train)
    return Splits(train, val) if data.train or data.val or data.classes else None


def _manifest(spec: Spec, url: str | None, path: str, home: Path) -> Manifest | None:
    """Return the manifest of the shards that a spec names at a path."""
    if url is None:
        return None
    with located(spec.root, path):
        return _read(spec, home, url)


def _read(spec: Spec, home: Path, url: str) -> Manifest:
    return _loaded(bundled.resolve(url, home), ReadOptions(missing=spec.stream.missing))


def _loaded(url: str, options: ReadOptions) -> Manifest:
    """Return the manifest, shared with other runs where equal: each has an open file and up to 20 MiB of rows."""
    manifest = load(url, options)
    shared = _manifests.setdefault((url, options), manifest)
    if shared != manifest:
        shared = _manifests[url, options] = manifest
    return shared


def unique(planned: Sequence[PlannedRun]) -> tuple[PlannedRun, ...]:
    """Return the runs, once each where several specs share them, as they mostly share baselines."""
    return tuple({run.id: run for run in planned}.values())


def _baseline(run: Run, name: str) -> Run:
    """Return a baseline in the place of a run: of its samples alone, without what its method reads beside them."""
    left_out = ("hyper", "augment", "towers", *SECTIONS)
    settings = {key: value for key, value in run.model_dump().items() if key not in left_out}
    settings["input"] = {name: knobs for name, knobs in settings["input"].items() if name not in run.others}
    return run_type(name, *used(settings)).model_validate(settings | {"method": name})

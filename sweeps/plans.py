"""A sweep file as plans, statuses and reports read it: planned once, and recalled while file, data and code stay."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selfsup.errors import DataError
from selfsup.evaluator import Metric
from selfsup.homes import pull
from selfsup.mlflow_store import home
from selfsup.pipelines.data import manifest
from selfsup.pipelines.summary import RunSummary, as_data, first_of, from_data, summarize
from selfsup.pipelines.usual import usual_feeder
from selfsup.recall import recall
from selfsup.sweeps.spec import sweepfile
from selfsup.sweeps.spec.study import Arm, Factor, Study
from selfsup.sweeps.spec.sweep import Sweep
from selfsup.sweeps.spec.sweepfile import SweepFile
from selfsup.sweeps.status import RunStatus, run_statuses

if TYPE_CHECKING:
    from selfsup.pipelines.planned import PlannedRun

MOST_RUNS = 20_000  # of a plan that is kept: a thousand, of ten stages each, are 0.3 MiB


class Plan:
    """The plan of a sweep file that is no search. To plan takes torch; to recall what was planned does not.

    A plan is kept where selfsup's own code, the file, and what it names settle it: data, weights, specs of earlier
    trainings. Where it names code from elsewhere, whose imports nobody knows, or a finished run, it is planned anew.
    """

    def __init__(self, path: Path, overrides: Sequence[str], home: Path) -> None:
        pull(home)
        self._home = home
        self._signature = sweepfile.signature(path, overrides)
        self._path, self._overrides = path, overrides

    @cached_property
    def file(self) -> SweepFile:
        """Return the checked file. Raises SpecError."""
        return sweepfile.read(self._path, self._overrides)

    @property
    def is_search(self) -> bool:
        return self._signature is None and self.file.search is not None

    @cached_property
    def planned(self) -> "tuple[Sweep, dict[str, PlannedRun]]":
        """Return the sweep, and its runs by id. Raises what `expand` does."""
        from selfsup.sweeps.spec.expand import expand

        return expand(self.file, self._home)

    @property
    def sweep(self) -> Sweep:
        return self._kept[0]

    @property
    def runs(self) -> dict[str, RunSummary]:
        """Return the runs by id, baselines first."""
        return self._kept[1]

    @property
    def is_plain(self) -> bool:
        """Return whether it is of one arm."""
        return [len(study.arms) for study in self.sweep.studies] == [1]

    @cached_property
    def facts(self) -> list[tuple[str, str]]:
        """Return what a plan says of the first training; nothing without one."""
        return [(name, text) for name, text in self._recalled("facts", self._facts)]

    @cached_property
    def warnings(self) -> dict[str, list[str]]:
        """-> study: the warnings of its arms."""
        return dict(self._recalled("warnings", self._warnings))

    @cached_property
    def _kept(self) -> tuple[Sweep, dict[str, RunSummary]]:
        content = self._recalled("plan", self._content)
        if content is None:  # too large
            sweep, planned = self.planned
            return sweep, {key: summarize(run) for key, run in planned.items()}
        return _sweep(content["sweep"]), {run.id: run for run in from_data(content, self._home)}

    def _recalled(self, subject: str, answer: Any) -> Any:
        if self._signature is None:
            return answer()
        question = [subject, self._signature, usual_feeder()]
        content = recall(self._home, question, lambda: self._dated(answer()), holds=_is_current)
        return content["answer"]

    def _dated(self, answer: Any) -> dict[str, Any]:
        """Return an answer with the digests of the data that it is of."""
        runs = [one for run in self.planned[1].values() for one in _with_earlier(run)]
        data = [manifest for run in runs for manifest in run.data.values()]
        return {"answer": answer, "data": {manifest.home: manifest.digest for manifest in data}}

    def _content(self) -> dict[str, Any] | None:
        sweep, planned = self.planned
        if self._signature is not None and len(planned) > MOST_RUNS:
            return None
        return {"sweep": asdict(sweep), **as_data(map(summarize, planned.values()))}

    def _facts(self) -> Sequence[tuple[str, str]]:
        from selfsup.pipelines.cost import facts

        first = first_of(list(self.runs.values()))
        return facts(self.planned[1][first.id]) if first.own else ()

    def _warnings(self) -> Mapping[str, Sequence[str]]:
        from selfsup.sweeps.spec.outline import warnings

        return warnings(*self.planned)


def statuses(path: Path, overrides: Sequence[str] = ()) -> list[RunStatus]:
    """Return the status of every run of a sweep file, the trials of a search first. Raises SpecError."""
    plan = Plan(path, overrides, home())
    if not plan.is_search:
        return run_statuses(plan.sweep, plan.runs)
    from selfsup.sweeps import layout

    return layout.statuses(plan.file)


def _with_earlier(run: "PlannedRun") -> "Iterator[PlannedRun]":
    """Yield a run and all that come before it."""
    yield run
    for earlier in run.before.values():
        yield from _with_earlier(earlier)


def _is_current(content: Mapping[str, Any]) -> bool:
    """Return whether all data is what it was."""
    try:
        return all(manifest.load(home).digest == digest for home, digest in content["data"].items())
    except DataError:
        return False


def _sweep(data: Mapping[str, Any]) -> Sweep:
    studies, scales = map(_study, data["studies"]), data["scales"].items()
    own = {"studies": tuple(studies), "scales": {name: Metric(*scale) for name, scale in scales}}
    return Sweep(**_frozen(data) | own)


def _study(data: Mapping[str, Any]) -> Study:
    factors = {name: tuple(Factor(**_frozen(factor)) for factor in data[name]) for name in ("factors", "grid")}
    arms = {name: tuple(map(_arm, data[name])) for name in ("arms", "floor")}
    return Study(**dict(data) | factors | arms)


def _arm(data: Mapping[str, Any]) -> Arm:
    return Arm(**_frozen(data) | {"ids": {int(seed): key for seed, key in data["ids"].items()}})


def _frozen(value: Any) -> Any:
    """Return JSON data with tuples for lists, as specs have them."""
    if isinstance(value, Mapping):
        return {name: _frozen(inner) for name, inner in value.items()}
    return tuple(map(_frozen, value)) if isinstance(value, (list, tuple)) else value

"""Planned runs as plain data: what plans and statuses show of them. It needs no torch, and a file can hold it."""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selfsup import origin
from selfsup.progress import several
from selfsup.stage import Stage, failure

if TYPE_CHECKING:
    from selfsup.pipelines.planned import PlannedRun

OWN, BEFORE, AFTER, EARLIER = "own", "before", "after", "earlier"


@dataclass(frozen=True)
class Training:
    """A training that a run needs.

    role: "own"; "before", which the run's spec names; "earlier", before one of those; or "after", which an evaluation
    scores. title: what a plan calls it. gpus: of all its workers. stream: equal for trainings that one stream can feed.
    """

    stage: Stage
    role: str
    title: str
    method: str
    steps: int
    batch: int
    gpus: float
    stream: str | None

    @property
    def samples(self) -> int:
        return self.steps * self.batch

    @property
    def length(self) -> str:
        """Return such as "480 steps of 32, done"."""
        return f"{several(self.steps, 'step')} of {self.batch}{', done' * self.stage.done}"


@dataclass(frozen=True)
class RunSummary:
    """A run. probes: the stages of its evaluations. headlines: the names of their metrics that tables show.

    means: names of means of evaluations -> those of the metrics that each is made of. data: its samples, shards, labels
    and classes, as text.
    """

    id: str
    spec: str
    method: str
    label: str
    seed: int
    steps: int
    home: Path
    stages: tuple[Stage, ...]
    trainings: tuple[Training, ...]
    probes: Mapping[str, Stage]
    headlines: tuple[str, ...]
    means: Mapping[str, tuple[str, ...]]
    data: str

    @property
    def own(self) -> Training | None:
        return next((training for training in self.trainings if training.role == OWN), None)

    @property
    def pretrain(self) -> Stage | None:
        return self.own.stage if self.own else None

    @property
    def done(self) -> bool:
        return all(stage.done for stage in self.stages)

    @property
    def failure(self) -> Path:
        """Return the path of the file that says why the latest attempt failed."""
        return failure(self.home, self.id)


def summarize(run: "PlannedRun") -> RunSummary:
    """Return what is shown of a planned run."""
    return RunSummary(
        id=run.id,
        spec=run.spec,
        method=run.method,
        label=run.label,
        seed=run.run.seed,
        steps=run.steps,
        home=run.home,
        stages=run.stages,
        trainings=tuple(_trainings(run)),
        probes=run.probes,
        headlines=run.headlines,
        means=run.means,
        data="; ".join(
            f"{name} {several(manifest.num_samples, 'sample')} in {several(manifest.num_shards, 'shard')}, "
            f"{manifest.num_labelled:,} labelled, {several(len(manifest.classes), 'class', 'classes')}"
            for name, manifest in run.data.items()
        ),
    )


def _trainings(run: "PlannedRun") -> Iterator[Training]:
    """Yield those before a run first, then its own, then those after it."""
    titles = {
        earlier.pretrain.key: f"{name}: {earlier.spec}, {earlier.method}, seed {earlier.run.seed}"
        for name, earlier in run.before.items()
        if earlier.pretrain
    }
    for stage in (stage for stage in run.training if stage.kind == "pretrain"):
        role = OWN if run.pretrain and stage.key == run.pretrain.key else BEFORE if stage.key in titles else EARLIER
        yield _training(run.owner(stage), stage, role, titles.get(stage.key, ""))
    for name, tuned in run.tuned.items():
        assert tuned.pretrain
        yield _training(tuned, replace(tuned.pretrain, name=name), AFTER, name)


def _training(run: "PlannedRun", stage: Stage, role: str, title: str) -> Training:
    from selfsup.pipelines.sharing import stream_key  # of views, which torch is needed for

    gpus = run.run.worker_counts[-1] * run.run.resources.gpus_per_worker
    return Training(stage, role, title, run.method, run.steps, run.run.train.batch, gpus, stream_key(run))


def sharing(trainings: Iterable[Training]) -> Iterator[str]:
    """Yield a line of the plan where trainings that are not done share streams."""
    streams = {one.stage.key: one.stream or one.stage.key for one in trainings if not one.stage.done}
    sizes = [number for number in Counter(streams.values()).values() if number > 1]
    if sizes:
        shared = f"{sum(sizes)} runs of {several(len(sizes), 'stream')}"
        yield f"  {shared}: those of one that train at the same time share it"


Facts = Sequence[tuple[str, str]]  # what a plan says of a training: what it is about, and the text


def describe(plans: Sequence[Sequence[RunSummary]], facts: Sequence[Facts]) -> str:
    """Return the plans of some specs as text: data, cost, and every run with its stages, done (*) or to do.

    facts: what is said of the first training of each, none for a plan without training.
    """
    lines = []
    for planned, known in zip(plans, facts, strict=True):
        first = first_of(planned)
        lines += [f"{first.spec}, {first.method}", f"  data     {first.data}"]
        lines += [f"  {name:<8} {text}" for name, text in _with_others(first, known)]
    runs = tuple({run.id: run for planned in plans for run in planned}.values())
    stages = {stage.key: stage for run in runs for stage in run.stages}.values()
    lines += [f"{len(runs)} runs, {len(stages)} stages, {sum(stage.done for stage in stages)} of them done (*)"]
    changed = origin.changes_by_key(stages)
    lines += [f"  {line}" for line in origin.describe(stages, changed)]
    lines += sharing(run.own for run in runs if run.own and not run.done)
    lines += [f"  {run.id:<22}  {run.label:<14}  seed {run.seed}  {_stages(run, changed)}" for run in runs]
    return "\n".join(lines)


def first_of(planned: Sequence[RunSummary]) -> RunSummary:
    """Return the first run that trains, or else the first."""
    return next((run for run in planned if run.own), planned[0])


def _with_others(run: RunSummary, facts: Facts) -> Iterator[tuple[str, str]]:
    """Yield what is said of a training, with the trainings before its length and after it."""
    others = {
        line: [(role, f"{one.title}: {one.length}") for one in run.trainings if one.role == role]
        for line, role in (("length", BEFORE), ("compute", AFTER))
    }
    for name, text in facts:
        yield from others.get(name, ())
        yield name, text


def _stages(run: RunSummary, changed: Collection[str]) -> str:
    return ", ".join(
        f"{stage.space.removeprefix('eval/')}{'*' * stage.done}{'!' * (stage.key in changed)}" for stage in run.stages
    )


class StageTable:
    """Stages as JSON data, each once, and named by its place; those that it depends on come before it."""

    def __init__(self, rows: Sequence[Mapping[str, Any]] = (), home: Path = Path()) -> None:
        self.rows = list(rows)
        self._home = home
        self._places: dict[tuple[str, str], int] = {}
        self._stages: dict[int, Stage] = {}

    def add(self, stage: Stage) -> int:
        """Return the place of a stage, which gets one if it has none."""
        name = stage.key, stage.name
        if name not in self._places:
            after = [self.add(other) for other in stage.after]
            names = "kind", "identity", "resolved", "entries", "name"
            self.rows.append({field: getattr(stage, field) for field in names} | {"after": after})
            self._places[name] = len(self.rows) - 1
        return self._places[name]

    def stage(self, place: int) -> Stage:
        """Return the stage of a place."""
        if place not in self._stages:
            row = dict(self.rows[place])
            after = tuple(map(self.stage, row.pop("after")))
            self._stages[place] = Stage(home=self._home, after=after, **row | {"entries": tuple(row["entries"])})
        return self._stages[place]


def as_data(runs: Iterable[RunSummary]) -> dict[str, Any]:
    """Return runs as JSON data."""
    table = StageTable()
    rows = [
        vars(run)
        | {
            "home": None,
            "stages": [table.add(stage) for stage in run.stages],
            "trainings": [vars(one) | {"stage": table.add(one.stage)} for one in run.trainings],
            "probes": {name: table.add(stage) for name, stage in run.probes.items()},
        }
        for run in runs
    ]
    return {"runs": rows, "stages": table.rows}


def from_data(data: Mapping[str, Any], home: Path) -> list[RunSummary]:
    """Return the runs of `as_data`, whose stages lie under `home`."""
    table = StageTable(data["stages"], home)
    return [
        RunSummary(
            **row
            | {
                "home": home,
                "stages": tuple(map(table.stage, row["stages"])),
                "trainings": tuple(Training(**one | {"stage": table.stage(one["stage"])}) for one in row["trainings"]),
                "probes": {name: table.stage(place) for name, place in row["probes"].items()},
                "headlines": tuple(row["headlines"]),
                "means": {name: tuple(of) for name, of in row["means"].items()},
            }
        )
        for row in data["runs"]
    ]

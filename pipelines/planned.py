"""A planned run: its data, its stages and its id; nothing of it has started."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from selfsup import augmentation, codebase, evaluations, outside
from selfsup.augmentation import OwnAugmentation
from selfsup.evaluations import Evaluation
from selfsup.feature_choice import OWN, FeatureChoice
from selfsup.method import TrainInfo
from selfsup.method import load as load_method
from selfsup.modality import MODALITIES
from selfsup.modality import load as load_modality
from selfsup.origin import CodePolicy
from selfsup.pipelines import drawn, embedding, keys, lacking, objective, tuning
from selfsup.pipelines.data import measured
from selfsup.pipelines.data.manifest import Manifest
from selfsup.pipelines.data.order import SampleOrder
from selfsup.pipelines.objective import TrainedMethod
from selfsup.pipelines.usual import usual_feeder
from selfsup.sections import Feeder
from selfsup.source import Mark, Node
from selfsup.spec import BASELINES, Run
from selfsup.stage import Settings, Stage, digest, failure

WORKER, TARGETS = (f"selfsup.pipelines.stages.{name}" for name in ("worker", "targets"))


class Splits(NamedTuple):
    """The data of an evaluation: the split that it learns from, and the one that it is scored on."""

    train: Manifest
    val: Manifest


@dataclass(frozen=True)
class PlannedRun:
    """A Run with its data, its stages, and its id: the name of its row, MLflow run and record.

    root: the spec with the places of its values. peers: number of runs that begin together and that one stream can
    feed. usual: feeder where the spec says `auto`. code: policy for stages that other code made. others: data of the
    evaluations that have data of their own, by name. before: trainings that come before its own, by their sections:
    start, teacher. normalized_by: data of the statistics that normalize; None: its own. study, arm: in a sweep.
    """

    run: Run
    spec: str
    train: Manifest
    val: Manifest | None
    home: Path
    root: Node = field(default=Node(Mark(""), {}), compare=False)
    peers: int = 1
    usual: Feeder = field(default_factory=usual_feeder)
    code: CodePolicy = "refuse"
    others: Mapping[str, Splits] = field(default_factory=dict)
    before: Mapping[str, "PlannedRun"] = field(default_factory=dict)
    normalized_by: Manifest | None = None
    study: str = field(default="", compare=False)
    arm: str = field(default="", compare=False)

    @cached_property
    def id(self) -> str:
        """Return the name of the run. Names of stages are part of it, since metrics are named after them."""
        return f"{self.method}-{digest([f'{stage.name} {stage.key}'.lstrip() for stage in self.stages])}"

    @property
    def method(self) -> str:
        """Return the name of the method, which is no path."""
        return outside.short(self.run.method)

    @property
    def title(self) -> str:
        """Return its name in Ray's dashboard: study, arm, seed and id. It is the name of a folder, too."""
        place = f"{self.study}, {self.arm}" if self.arm else self.label
        return re.sub(r"[^\w ,.=+-]", "_", f"{place[:100]}, seed {self.run.seed}, {self.id}")

    @property
    def label(self) -> str:
        raw = f"raw {load_modality(self.run.modality).values}"
        return {"pixels": raw, "untrained": "random encoder"}.get(self.method, self.method)

    @cached_property
    def learned(self) -> Manifest:
        """Return the data that training reads: `train`, or what `stream.lacking` leaves of it."""
        return lacking.learned(self.run, self.train)

    @property
    def shown(self) -> Manifest:
        """Return the data that reconstructions are of: validation data, where they have all that the method reads."""
        return lacking.shown(self.run, self.val, self.train)

    @cached_property
    def order(self) -> SampleOrder:
        stream: dict[str, Any] = self.run.stream.model_dump(include={"lanes", "chunk", "mix", "remainder"})
        return SampleOrder(samples=self.learned.num_samples, batch=self.run.train.batch, seed=self.run.seed, **stream)

    @property
    def feeder(self) -> Feeder:
        return self.usual if self.run.stream.feeder == "auto" else self.run.stream.feeder

    @property
    def steps(self) -> int:
        return self.run.train.duration.steps_of(batch=self.order.batch, steps_per_epoch=self.order.steps_per_epoch)

    @property
    def due(self) -> range:
        """Return the steps after which the encoder is evaluated while it trains; the last is not among them."""
        is_due = self.pretrain and any(evaluation.has_curve for evaluation in self.evals.values())
        pace = evaluations.every(self.run.evals) if is_due else None
        gap = pace.steps_of(batch=self.order.batch, steps_per_epoch=self.order.steps_per_epoch) if pace else self.steps
        return range(gap, self.steps, gap)

    @property
    def leaves(self) -> tuple[str, ...]:
        """Return the files that training leaves for evaluations: the objective, too, where one reads it whole."""
        features = [evaluation.feature for evaluation in self.evals.values()]
        is_whole = any(feature.is_of_objective or feature.reads_beside for feature in features)
        return (objective.ENCODER, *([objective.METHOD] if is_whole else []))

    @property
    def size(self) -> TrainInfo:
        return objective.size(self.run, self.learned, self.steps, self.order.steps_per_epoch)

    @cached_property
    def pretrain(self) -> Stage | None:
        if self.run.method in BASELINES:
            return None
        parts, backbone = ["method", "seed", "hyper", "backbone", "optim", "train", "stream"], self.run.backbone.name
        extra = keys.training_data(self.learned, self.normalized_by)
        extra |= codebase.unshipped_digest("methods", self.run.method) | codebase.backbone_digest(backbone)
        towers = {name: tower.name for name, tower in self.run.kinds.towers.items()}
        extra |= {name: code for name, tower in towers.items() if (code := codebase.backbone_digest(tower))}
        before = {name: run.pretrain for name, run in self.before.items()} | {"targets": self.targets}
        extra |= {name: stage.key for name, stage in before.items() if stage}
        extra |= {name: keys.given(run.run) for name, run in self.before.items() if not run.pretrain}
        extra |= {"start_weights": "all"} if self.run.starts_whole else {}
        backbones = [module for name in (backbone, *towers.values()) for module in codebase.backbone_entry(name)]
        own = [codebase.entry("methods", self.run.method), *backbones, *keys.code(self.learned)]
        if self.augment:
            parts.append("augment")
            extra |= codebase.augmentation_digest(self.augment.use)
            own.append(codebase.entry("augmentations", self.augment.use))
        after = tuple(stage for stage in before.values() if stage)
        entries = WORKER, *(f"{MODALITIES}.{name}" for name in (self.run.modality, *self.run.beside)), *own
        return self._stage("pretrain", parts, extra, entries=entries, after=after)

    @property
    def teacher(self) -> "PlannedRun | None":
        return self.before.get("teacher")

    @property
    def start(self) -> Path | None:
        """Return the file of the encoder that training starts from, or of all weights."""
        earlier = self.before.get("start")
        name = objective.METHOD if self.run.starts_whole else objective.ENCODER
        return earlier.pretrain.folder / name if earlier and earlier.pretrain else None

    @cached_property
    def targets(self) -> Stage | None:
        """Return the stage that makes targets of the teacher's features; None for a method that reads none."""
        teacher = self.teacher and self.teacher.pretrain
        if not teacher or load_method(self.run.method).lesson(self.run.hyper) != "targets":
            return None
        extra = {"teacher": teacher.key} | keys.training_data(self.learned, None)
        entries = (TARGETS, f"{MODALITIES}.{self.run.modality}", codebase.entry("methods", self.run.method))
        return self._stage("targets", ["method", "seed", "hyper", "embed"], extra, entries=entries, after=(teacher,))

    @property
    def training(self) -> tuple[Stage, ...]:
        """Return the stages of training, those of earlier trainings first, which are named by their sections."""
        before = [
            replace(stage, name=stage.name or name) for name, run in self.before.items() for stage in run.training
        ]
        return (*before, *(stage for stage in (self.targets, self.pretrain) if stage))

    @cached_property
    def tuned(self) -> dict[str, "PlannedRun"]:
        """Return the runs that go on from its encoder with labels, by the evaluations that score them."""
        own: dict[str, Any] = {"val": None, "others": {}, "root": Node(Mark(""), {}), "normalized_by": self.train}
        own["before"] = {"start": self} if self.pretrain else {}
        scored = [evaluation for evaluation in self.evals.values() if evaluation.evaluator.reads == "logits"]
        runs = {one: tuning.training(self.run, one, goes_on=bool(self.pretrain)) for one in scored}
        parts = {one: tuning.labelled(self.splits(one.name).train, one, self.run.seed) for one in scored}
        return {one.name: replace(self, run=runs[one], train=parts[one], **own) for one in scored}

    @property
    def tunings(self) -> tuple[Stage, ...]:
        """Return the stages of their trainings, which are named by the evaluations."""
        named = [replace(run.pretrain, name=name) for name, run in self.tuned.items() if run.pretrain]
        return tuple({stage.key: stage for stage in named}.values())

    def owner(self, stage: Stage) -> "PlannedRun":
        """Return the run whose stage it is: this one, one before it, or one that an evaluation scores."""
        before = (run for run in self.before.values() if stage.key in {other.key for other in run.training})
        tuned = (run for run in self.tuned.values() if run.pretrain and run.pretrain.key == stage.key)
        return next((run.owner(stage) for run in before), next(tuned, self))

    @property
    def taught(self) -> TrainedMethod | None:
        """Return the teacher as training loads it."""
        if not (run := self.teacher):
            return None
        targets = self.targets.folder / objective.TARGETS if self.targets else None
        return TrainedMethod(run.run, run.size, run.pretrain.folder if run.pretrain else None, run.taught, targets)

    @cached_property
    def info(self) -> TrainInfo:
        """Return `size`, with the teacher on the meta device."""
        if self.teacher is None:
            return self.size
        return objective.blank_taught(self.run, self.size, self.teacher.run, self.teacher.info)

    @cached_property
    def stats(self) -> Any:
        """Return the Stats by which samples are normalized: the manifest's, or measured at settings of `input`."""
        return self._stats(self.run.modality, self.run.kinds.knobs)

    @cached_property
    def stats_beside(self) -> dict[str, Any]:
        """Return the same of each modality beside samples."""
        return {name: self._stats(name, knobs) for name, knobs in self.run.kinds.beside.items()}

    @property
    def all_stats(self) -> dict[str, Any]:
        return {self.run.modality: self.stats, **self.stats_beside}

    def _stats(self, name: str, knobs: Any) -> Any:
        return measured.stats(self.normalized_by or self.train, name, knobs, self.home)

    @property
    def augment(self) -> OwnAugmentation | None:
        return augmentation.own(self.run.augment)

    @cached_property
    def evals(self) -> dict[str, Evaluation]:
        """Return the evaluations, by name; of raw samples those that need no encoder, of baselines those of one."""
        listed, method = evaluations.listed(self.run.evals), self.run.method
        return {name: one for name, one in listed.items() if not one.feature.is_lacking(method)}

    @property
    def headlines(self) -> tuple[str, ...]:
        scales = evaluations.scales(self.run.evals, self.evals)
        return tuple(name for name in scales if scales[name].headline)

    @cached_property
    def means(self) -> dict[str, tuple[str, ...]]:
        """Return the names of the metrics that each mean of its evaluations is made of."""
        return {name: mean.of for name, mean in evaluations.means(self.run.evals, self.evals).items()}

    def splits(self, evaluation: str) -> Splits:
        """Return the data that an evaluation is made on."""
        if evaluation in self.others:
            return self.others[evaluation]
        assert self.val is not None, f"{evaluation} without data.val"
        return Splits(self.train, self.val)

    @property
    def data(self) -> dict[str, Manifest]:
        """Return every data set by its use: train, val, and such as flowers.train."""
        own = {"train": self.train} | ({"val": self.val} if self.val else {})
        others = {name: splits._asdict() for name, splits in self.others.items()}
        return own | {f"{name}.{use}": data for name in others for use, data in others[name].items()}

    @cached_property
    def embeds(self) -> dict[str, Stage]:
        """Return the stage that embeds the data of each evaluation, shared by those that read the same features."""
        stages: dict[Any, Stage] = {}
        by_name, own = {}, (self.train.digest, self.val.digest if self.val else "", OWN)
        for name, evaluation in self.evals.items():
            train, val = (data.digest for data in self.splits(name))
            what = train, val, self.feature(evaluation).whole
            reader, data = self.tuned.get(name, self), {"train": train, "val": val} | what[2].identity
            key = what, reader.pretrain and reader.pretrain.key
            stage = stages.get(key) or reader._embed("embed", data, "" if what == own else name)
            by_name[name] = stages[key] = stage
        return by_name

    @cached_property
    def views(self) -> dict[str, Stage]:
        """Return the stage that embeds versions of samples for each evaluation that reads some, shared likewise."""
        reads = {name: what for name, evaluation in self.evals.items() if (what := self.feature(evaluation)).views}
        of = {name: {what.split: getattr(self.splits(name), what.split).digest} for name, what in reads.items()}
        made = {name: self._embed("views", of[name] | what.identity, name) for name, what in reads.items()}
        first = {stage.key: stage for stage in reversed(made.values())}
        return {name: first[stage.key] for name, stage in made.items()}

    def feature(self, evaluation: Evaluation) -> FeatureChoice:
        """Return the feature that an evaluation reads of this encoder."""
        return evaluation.feature.of(self.run.method, self.run.backbone)

    def _embed(self, kind: str, data: Settings, name: str) -> Stage:
        return embedding.stage(kind, self.run, self.home, data, self.train.digest, self.pretrain, name)

    @cached_property
    def probes(self) -> dict[str, Stage]:
        """Return the stage of each evaluation, by its name."""
        read = {name: [self.embeds[name], *filter(None, [self.views.get(name)])] for name in self.evals}
        return {name: embedding.probe(one, read[name], self.run.seed, self.home) for name, one in self.evals.items()}

    @cached_property
    def drawings(self) -> tuple[Stage, ...]:
        """Return the stages of pictures, and of the features that images are painted from."""
        shown = {"pictures": self.shown.digest, "visualize": (self.val or self.train).digest}
        own = drawn.of_encoder(self.run, self.pretrain, shown, self.train.digest, self.home)
        if not (self.run.paint and self.val):
            return own
        features = self._embed("embed", {"train": self.train.digest, "val": self.val.digest}, "")
        return (*own, features, drawn.painted(self.run, features))

    @cached_property
    def stages(self) -> tuple[Stage, ...]:
        """Return the stages of the run, each after those that it depends on."""
        made = *self.drawings, *self.tunings, *self.embeds.values(), *self.views.values()
        return (*self.training, *{stage.key: stage for stage in made}.values(), *self.probes.values())

    @property
    def done(self) -> bool:
        return all(stage.done for stage in self.stages)

    @property
    def failure(self) -> Path:
        """Return the path of the file that says why the latest attempt failed."""
        return failure(self.home, self.id)

    def params(self) -> dict[str, str]:
        """Return the settings of the Run as texts by path, for MLflow."""
        return keys.params(self.run, self.evals, self.augment)

    def _stage(self, kind: str, parts: list[str], extra: Settings, **made_by: Any) -> Stage:
        return Stage(kind, *keys.settings(self.run, parts, extra), self.home, **made_by)

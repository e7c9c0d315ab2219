"""A planned run: its data, its stages and its id; nothing of it has started."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from selfsup import augmentation, codebase, evaluations, modality, outside
from selfsup.augmentation import OwnAugmentation
from selfsup.errors import SpecError
from selfsup.evaluations import Evaluation
from selfsup.knob import as_dict, identity, non_default
from selfsup.layers import located
from selfsup.method import Method, TrainInfo
from selfsup.method import load as load_method
from selfsup.modality import MODALITIES
from selfsup.modality import load as load_modality
from selfsup.origin import CodePolicy
from selfsup.outside_backbone import portable
from selfsup.pipelines.data import measured
from selfsup.pipelines.data.manifest import Manifest
from selfsup.pipelines.data.order import SampleOrder
from selfsup.sections import Feeder
from selfsup.settings import flatten
from selfsup.source import Mark, Node
from selfsup.spec import BASELINES, Run
from selfsup.stage import Settings, Stage, digest, write_json
from selfsup.weights import content

WORKER, EVALUATE, PICTURES = (f"selfsup.pipelines.stages.{name}" for name in ("worker", "evaluate", "pictures"))


def usual_feeder() -> Feeder:
    """Return the default of `stream.feeder`: threads on one machine, Ray's tasks on a cluster.

    To be called where the user's command runs, since RAY_ADDRESS is set in Ray's own processes on one machine, too.
    """
    return "ray" if os.environ.get("RAY_ADDRESS") else "threads"


class Splits(NamedTuple):
    """The data of an evaluation: the split that it learns from, and the one that it is scored on."""

    train: Manifest
    val: Manifest


@dataclass(frozen=True)
class PlannedRun:
    """A Run with its data, its stages, and its id: the name of its row, MLflow run and record.

    root: the spec with the places of its values. peers: number of runs that begin together and that one stream can
    feed. usual: feeder where the spec says `auto`. code: policy for stages that other code made. others: data of the
    evaluations that have data of their own, by name. study, arm: its place in a sweep, which screens show.
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
    study: str = field(default="", compare=False)
    arm: str = field(default="", compare=False)

    @cached_property
    def id(self) -> str:
        """Return the name of the run. Names of evaluations are part of it, since metrics are named after them."""
        named = [f"{stage.name} {stage.key}" if stage.name else stage.key for stage in self.stages]
        return f"{self.method}-{digest(named)}"

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
    def order(self) -> SampleOrder:
        stream = self.run.stream
        return SampleOrder(
            samples=self.train.num_samples,
            batch=self.run.train.batch,
            seed=self.run.seed,
            lanes=stream.lanes,
            chunk=stream.chunk,
            mix=stream.mix,
            remainder=stream.remainder,
        )

    @property
    def feeder(self) -> Feeder:
        feeder = self.run.stream.feeder
        return self.usual if feeder == "auto" else feeder

    @property
    def steps(self) -> int:
        batch = self.run.train.batch
        return self.run.train.duration.steps_of(batch=batch, steps_per_epoch=self.order.steps_per_epoch)

    @property
    def info(self) -> TrainInfo:
        train, order = self.train, self.order
        reading = train.fields[self.run.modality]
        moments = {"mean": reading.mean, "std": reading.std} if self.run.modality == "image" else {}
        return TrainInfo(
            num_samples=train.num_samples,
            num_classes=len(train.classes),
            num_steps=self.steps,
            steps_per_epoch=order.steps_per_epoch,
            channels=reading.channels,
            sizes=modality.sizes_of(self.run.input, self.run.backbone),
            **moments,
        )

    @cached_property
    def pretrain(self) -> Stage | None:
        if self.run.method in BASELINES:
            return None
        parts = ["method", "seed", "hyper", "backbone", "optim", "train", "stream"]
        backbone = self.run.backbone.name
        extra = {"data": self.train.digest} | codebase.unshipped_digest("methods", self.run.method)
        extra |= codebase.backbone_digest(backbone)
        own = [codebase.entry("methods", self.run.method), *codebase.backbone_entry(backbone)]
        if self.augment:
            parts.append("augment")
            extra |= codebase.augmentation_digest(self.augment.use)
            own.append(codebase.entry("augmentations", self.augment.use))
        entries = (WORKER, self._modality, *own)
        return self._stage("pretrain", parts, extra, entries=entries)

    @cached_property
    def stats(self) -> Any:
        """Return the Stats by which samples are normalized: the manifest's, or measured at settings of `input`."""
        return measured.stats(self.train, self.run.input, self.home)

    @property
    def augment(self) -> OwnAugmentation | None:
        return augmentation.own(self.run.augment)

    @property
    def _modality(self) -> str:
        return f"{MODALITIES}.{self.run.modality}"

    @cached_property
    def evals(self) -> dict[str, Evaluation]:
        """Return the evaluations, by name."""
        return evaluations.listed(self.run.evals)

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
        return own | {
            f"{name}.{use}": data for name in self.others for use, data in self.others[name]._asdict().items()
        }

    @cached_property
    def embeds(self) -> dict[str, Stage]:
        """Return the stage that embeds the data of each evaluation, shared by those that read the same features."""
        stages: dict[tuple[str, str, str], Stage] = {}
        own = self.train.digest, self.val.digest if self.val else "", "pooled"
        by_name = {}
        for name, evaluation in self.evals.items():
            train, val = (data.digest for data in self.splits(name))
            what = train, val, evaluation.evaluator.reads
            if what not in stages:
                stages[what] = self._embed(*what, name="" if what == own else name)
            by_name[name] = stages[what]
        return by_name

    def _embed(self, train: str, val: str, reads: str, name: str) -> Stage:
        """Lay out the stage that embeds data sets of these digests. name: of the stage."""
        extra: dict[str, Any] = {"train": train, "val": val, "method": self.method}
        extra |= {"reads": reads} if reads != "pooled" else {}
        made_by: dict[str, Any] = {"entries": (EVALUATE, self._modality), "name": name}
        if self.pretrain:
            extra["pretrain"] = self.pretrain.key
            return self._stage("embed", ["embed"], extra, after=(self.pretrain,), **made_by)
        if self.run.method == "untrained":
            backbone = self.run.backbone.name
            extra |= codebase.backbone_digest(backbone)
            made_by["entries"] += codebase.backbone_entry(backbone)
            extra |= {"normalized_by": self.train.digest} if train != self.train.digest else {}
            return self._stage("embed", ["embed", "backbone", "seed"], extra, **made_by)
        extra |= {"image_size": self.run.backbone.image_size} if self.run.modality == "image" else {}
        return self._stage("embed", ["embed"], extra, **made_by)

    @cached_property
    def probes(self) -> dict[str, Stage]:
        """Return the stage of each evaluation, by its name."""
        return {name: self._probe(evaluation, self.embeds[name]) for name, evaluation in self.evals.items()}

    def _probe(self, evaluation: Evaluation, embed: Stage) -> Stage:
        use, kind, hyper = evaluation.use, outside.short(evaluation.use), evaluation.hyper
        common = {"features": embed.key, "seed": self.run.seed} | codebase.unshipped_digest("evals", use)
        changed, full = common | {"hyper": non_default(hyper)}, common | {"hyper": identity(hyper)}
        name = "" if evaluation.name == kind else evaluation.name
        return Stage(kind, changed, full, self.home, (codebase.entry("evals", use),), (embed,), name)

    @cached_property
    def pictures(self) -> Stage | None:
        """Return the stage of the reconstructions; None for an objective that predicts no pixels."""
        if self.pretrain is None or load_method(self.run.method).reconstruct is Method.reconstruct:
            return None
        made_of = {"pretrain": self.pretrain.key, "images": (self.val or self.train).digest}
        entries = (PICTURES, self._modality, codebase.entry("methods", self.run.method))
        return Stage("pictures", made_of, made_of, self.home, entries, after=(self.pretrain,))

    @cached_property
    def stages(self) -> tuple[Stage, ...]:
        """Return the stages of the run, each after those that it depends on."""
        embeds = {stage.key: stage for stage in self.embeds.values()}
        laid_out = (self.pretrain, self.pictures, *embeds.values(), *self.probes.values())
        return tuple(stage for stage in laid_out if stage)

    @property
    def scores(self) -> dict[str, float]:
        """Return the headline metrics of the evaluations that are done, by the names that MLflow has them under."""
        done = {stage.space: stage.result() for stage in self.probes.values() if stage.done}
        metrics = [metric for evaluation in self.evals.values() for metric in evaluation.metrics.items()]
        places = [(name, *name.rsplit("/", 1)) for name, metric in metrics if metric.headline]
        return {name: done[space][last] for name, space, last in places if last in done.get(space, {})}

    def remember(self) -> None:
        """Write the record of the run: its settings and the keys of its stages, under its id."""
        path = record(self.home, self.id)
        path.parent.mkdir(parents=True, exist_ok=True)
        stages = {"pretrain": self.pretrain and self.pretrain.key, "stages": [stage.key for stage in self.stages]}
        write_json(path, {"run": as_dict(self.run), "spec": self.spec, **stages})

    def check_unchanged(self) -> None:
        """Raise SpecError where a file that is part of the id has changed since."""
        if replace(self).id != self.id:  # a copy reads it anew
            backbone = self.run.backbone
            path, file = ("weights", backbone.weights) if backbone.weights else ("name", backbone.name)
            changed = f"{file} has changed since the run was planned"
            with located(self.root):
                raise SpecError(f"{changed}; run the same command again: it is another run now", f"backbone.{path}")

    @property
    def done(self) -> bool:
        return all(stage.done for stage in self.stages)

    @property
    def failure(self) -> Path:
        """Return the path of the file that says why the latest attempt failed."""
        return record(self.home, self.id).with_suffix(".failure")

    def params(self) -> dict[str, str]:
        """Return the settings of the Run as texts by path, for MLflow."""
        settings = as_dict(self.run) | {"method": self.method}
        idle = load_modality(self.run.modality).idle
        values = {path: str(value) for path, value in flatten(settings) if value is not None and path not in idle}
        own = {f"evals.{name}.use": evaluation.use for name, evaluation in self.evals.items()}
        own |= {"augment.use": self.augment.use} if self.augment else {}
        return values | {path: outside.short(use) for path, use in own.items() if path in values}

    def _by_content(self, sections: dict[str, Any]) -> dict[str, Any]:
        """Return the sections with the method's short name, and the contents of files that a backbone names."""
        backbone = self.run.backbone
        files = {"name": portable(backbone.name)} if outside.is_config_folder(backbone.name) else {}
        if backbone.weights not in (None, "timm"):
            files["weights"] = content(backbone.weights)
        named = {"backbone": sections["backbone"] | files} if files else {}
        if augment := sections.get("augment"):
            named["augment"] = augment | {"use": outside.short(augment["use"])}
        return sections | {"method": self.method} | named

    def _stage(self, kind: str, parts: list[str], extra: Settings, **made_by: Any) -> Stage:
        changed, full = self._by_content(non_default(self.run)), self._by_content(identity(self.run))
        parts = [*parts, *(["input"] if self.run.modality != "image" else [])]
        return Stage(
            kind,
            {part: changed[part] for part in parts if part in changed} | dict(extra),
            {part: full[part] for part in parts} | dict(extra),
            self.home,
            **made_by,
        )


def record(home: Path, run_id: str) -> Path:
    return home / "runs" / f"{run_id}.json"

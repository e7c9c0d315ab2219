"""Spec -> runs, their stages and ids, and what they will cost, before anything starts.

A stage is keyed by everything that its result depends on and by nothing else, so a finished one is found again from any
spec that needs it. Knobs at their defaults are left out of a key; the resolved dump lies beside the result and is
compared, so a default that changed in the code is noticed instead of mixed in.
"""

import fcntl
import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from selfsup.checkpoint import differences, flatten
from selfsup.errors import DataError, SpecError
from selfsup.knob import decisive, resolved, told
from selfsup.method import Facts, Method
from selfsup.method import load as load_method
from selfsup.pipelines import bundled
from selfsup.pipelines.fetch import Access
from selfsup.pipelines.lanes import Lanes
from selfsup.pipelines.manifest import Manifest, load
from selfsup.sections import Feeder
from selfsup.spec import BASELINES, Run, Spec, run_type
from selfsup.trunk import has_class_token

Told = Mapping[str, Any]
WORK = ("pretrain", "embed", "pictures")  # kinds of stages; every other kind is the name of an evaluator


def digest(value: Any, size: int = 6) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=size).hexdigest()


@dataclass(frozen=True)
class Stage:
    """One piece of work with a result of its own. `told` makes its key, `resolved` is kept beside the result."""

    kind: str
    told: Told
    resolved: Told
    home: Path

    @cached_property
    def key(self) -> str:
        return f"{self.kind}-{digest(self.told)}"

    @property
    def folder(self) -> Path:
        return self.home / "stages" / self.key

    @property
    def spool(self) -> Path:
        return self.folder / "metrics.jsonl"

    @property
    def done(self) -> bool:
        return (self.folder / "done.json").exists()

    @property
    def space(self) -> str:
        """What the names of its numbers begin with."""
        return self.kind if self.kind in WORK else f"eval/{self.kind}"

    def result(self) -> dict[str, float]:
        return dict(self._record()["result"])

    @property
    def time(self) -> int:
        """When it was finished, in milliseconds since 1970."""
        return int(self._record()["time"])

    def artifacts(self) -> list[Path]:
        return sorted([*self.folder.glob("*.png"), *self.folder.glob("bad-*.txt")])

    def claim(self) -> None:
        """Make the folder, or find it made by an earlier attempt at the very same work.

        Raises SpecError where the folder holds work of the same key under other defaults.
        """
        note = self.folder / "stage.json"
        now = json.loads(json.dumps(self.resolved))
        if note.exists() and (before := json.loads(note.read_text())) != now:
            raise SpecError(
                f"{self.folder}: a default has changed since this was begun (there):\n  "
                + "\n  ".join(differences(now, before))
                + "\nWrite the old value into the spec to continue, or remove the folder to start anew"
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(note, now)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Nobody else works on it inside the block: a second run that wants it waits, then finds it done."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    @property
    def running(self) -> bool:
        """Whether somebody holds it now."""
        try:
            with (self.folder / "lock").open() as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        return False

    def finish(self, result: Mapping[str, float]) -> None:
        write_json(self.folder / "done.json", {"result": dict(result), "time": time.time_ns() // 1_000_000})

    def _record(self) -> dict[str, Any]:
        return dict(json.loads((self.folder / "done.json").read_text()))


@dataclass(frozen=True)
class Planned:
    """A Run with its data found, its stages laid out, and its id: the name of its row, MLflow run and record.

    peers: runs that begin together and that one stream can feed.
    """

    run: Run
    spec: str
    train: Manifest
    val: Manifest | None
    home: Path
    peers: int = 1

    @cached_property
    def id(self) -> str:
        return f"{self.run.method}-{digest([stage.key for stage in self.stages])}"

    @property
    def label(self) -> str:
        return {"pixels": "raw pixels", "untrained": "random encoder"}.get(self.run.method, self.run.method)

    @cached_property
    def order(self) -> Lanes:
        stream = self.run.stream
        return Lanes(
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
        """Who makes the batches: as told, or else threads on a machine of its own, and Ray's tasks on a cluster."""
        told = self.run.stream.feeder
        return told if told != "auto" else "ray" if os.environ.get("RAY_ADDRESS") else "threads"

    @property
    def steps(self) -> int:
        batch = self.run.train.batch
        return self.run.train.duration.steps_of(batch=batch, steps_per_epoch=self.order.steps_per_epoch)

    @property
    def facts(self) -> Facts:
        return Facts(self.train.num_samples, len(self.train.classes), self.steps, self.order.steps_per_epoch)

    @cached_property
    def pretrain(self) -> Stage | None:
        if self.run.method in BASELINES:
            return None
        parts = ["method", "seed", "hyper", "backbone", "optim", "train", "stream"]
        return self._stage("pretrain", parts, {"data": self.train.digest})

    @cached_property
    def embed(self) -> Stage | None:
        if self.val is None or not self.evals:
            return None
        extra: dict[str, Any] = {"train": self.train.digest, "val": self.val.digest, "method": self.run.method}
        if self.pretrain:
            return self._stage("embed", ["embed"], extra | {"pretrain": self.pretrain.key})
        if self.run.method == "untrained":
            return self._stage("embed", ["embed", "backbone", "seed"], extra)
        return self._stage("embed", ["embed"], extra | {"image_size": self.run.backbone.image_size})

    @cached_property
    def evals(self) -> dict[str, Any]:
        """The evaluators asked for, by name, each with its knobs."""
        chosen = {name: getattr(self.run.evals, name) for name in type(self.run.evals).model_fields}
        return {name: hyper for name, hyper in chosen.items() if hyper is not None}

    @cached_property
    def probes(self) -> dict[str, Stage]:
        if self.embed is None:
            return {}
        home, features = self.home, self.embed.key
        common = {"features": features, "seed": self.run.seed}
        return {
            name: Stage(name, common | {"hyper": told(hyper)}, common | {"hyper": decisive(hyper)}, home)
            for name, hyper in self.evals.items()
        }

    @cached_property
    def pictures(self) -> Stage | None:
        """Of an objective that predicts what it masks."""
        if self.pretrain is None or load_method(self.run.method).reconstruct is Method.reconstruct:
            return None
        made_of = {"pretrain": self.pretrain.key, "images": (self.val or self.train).digest}
        return Stage("pictures", made_of, made_of, self.home)

    @cached_property
    def stages(self) -> tuple[Stage, ...]:
        """In the order in which they depend on each other."""
        laid_out = (self.pretrain, self.pictures, self.embed, *self.probes.values())
        return tuple(stage for stage in laid_out if stage)

    def remember(self) -> None:
        """Note under the run's id what it is and where its work lies."""
        path = record(self.home, self.id)
        path.parent.mkdir(parents=True, exist_ok=True)
        stages = {
            "pretrain": self.pretrain.key if self.pretrain else None,
            "stages": [stage.key for stage in self.stages],
        }
        write_json(path, {"run": resolved(self.run), "spec": self.spec, **stages})

    @property
    def done(self) -> bool:
        return all(stage.done for stage in self.stages)

    @property
    def failure(self) -> Path:
        """Where it is noted why the latest attempt failed."""
        return record(self.home, self.id).with_suffix(".failure")

    def params(self) -> dict[str, str]:
        """The Run flattened, for MLflow."""
        return {path: str(value) for path, value in flatten(resolved(self.run)) if value is not None}

    def _stage(self, kind: str, parts: list[str], extra: Told) -> Stage:
        said, full = told(self.run), decisive(self.run)
        return Stage(
            kind,
            {part: said[part] for part in parts if part in said} | dict(extra),
            {part: full[part] for part in parts} | dict(extra),
            self.home,
        )


def plan(spec: Spec, home: Path) -> tuple[Planned, ...]:
    """Every run that the spec asks for, baselines first. Builds bundled data that is missing; starts nothing.

    Raises DataError where a data set has no manifest, SpecError where it cannot fill a batch or all clusters, or the
    backbone lacks the class token that the method learns on.
    """
    _check_class_token(spec)
    runs = list(spec.runs)
    data, access = runs[0].data, Access(missing=runs[0].stream.missing)
    train = load(bundled.resolve(data.train, home), access)
    val = load(bundled.resolve(data.val, home), access) if data.val else None
    _check_batch(spec, runs[0], train)
    _check_clusters(spec, runs[0], train)
    if val is not None and val.classes != train.classes:
        raise DataError(
            f"{spec.name}: data.val has the classes {val.classes[:5]}..., data.train {train.classes[:5]}...: labels "
            "would not mean the same. Pack both from folders with the same class names."
        )
    if spec.baselines:
        runs = [_baseline(run, name) for name in BASELINES for run in runs] + runs
    planned = [Planned(run, spec.name, train, val, home) for run in runs]
    return tuple(each for each in planned if each.stages)


def unique(planned: Sequence[Planned]) -> tuple[Planned, ...]:
    """Runs that several specs share (their baselines, as a rule) counted once."""
    return tuple({each.id: each for each in planned}.values())


def _baseline(run: Run, name: str) -> Run:
    told_run = {key: value for key, value in run.model_dump().items() if key != "hyper"}
    return run_type(name).model_validate(told_run | {"method": name})


def _check_class_token(spec: Spec) -> None:
    method, backbone = spec.method, spec.backbone
    if method not in BASELINES and load_method(method).class_token and not has_class_token(backbone):
        raise SpecError(
            f"{spec.name}: backbone.name: {method} learns on the class token, and {backbone.name} has none; choose a "
            "ViT that has one, such as vit_small_patch16_224"
        )


def _check_batch(spec: Spec, run: Run, train: Manifest) -> None:
    if run.stream.remainder == "drop" and run.train.batch > train.num_samples:
        raise SpecError(
            f"{spec.name}: train.batch: {run.train.batch} samples a step, but {train.root} holds {train.num_samples}, "
            "and stream.remainder: drop leaves out what does not fill a batch. Use a smaller batch, or remainder: wrap."
        )


def _check_clusters(spec: Spec, run: Run, train: Manifest) -> None:
    clusters = getattr(run.hyper, "clusters", 0)
    if clusters > train.num_samples:
        raise SpecError(
            f"{spec.name}: hyper.clusters: {clusters} clusters, but {train.root} holds {train.num_samples} samples. "
            "Use fewer clusters."
        )


def record(home: Path, run_id: str) -> Path:
    return home / "runs" / f"{run_id}.json"


def write_json(path: Path, value: Any) -> None:
    """Whole or not at all."""
    part = path.with_suffix(".part")
    part.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n")
    part.replace(path)

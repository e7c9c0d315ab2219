"""The first spec of a user: an objective's recipe for small data, on her own images, with what she may change."""

import json
import math
import os
import re
import shlex
from pathlib import Path
from typing import NamedTuple

from selfsup.errors import SpecError
from selfsup.knob import Range, knob_lines
from selfsup.pipelines.data import head, manifest
from selfsup.pipelines.data.folders import find
from selfsup.progress import several
from selfsup.recipes import SHARED
from selfsup.shipped import files
from selfsup.spec import run_type

SPEC = """\
# {method} on {what}.   selfsup plan {file}; selfsup run {file}
extends: photos/{method}    # a recipe for small images and few CPUs; selfsup recipes lists those of the papers
name: {name}
data: {data}    # relative to this file
train: {{duration: {{epochs: {epochs}}}, batch: {batch}}}    # about {steps} steps; longer learns more
# ablate: {{{factor}}}    # settings to compare, a row each: selfsup sweep {file}
# hyper: {{}}    # every knob with its default and range: selfsup describe {method}
# backbone: {{image_size: 96}}    # instead of 48 pixels; selfsup describe --backbones lists others
# resources: {{gpus_per_worker: 1, cpus_per_worker: 4, data_cpus: 8}}    # on a GPU; and precision: bf16 in train
evals: {evals}
seeds: 2    # runs that differ in chance alone; a claim takes three or more
"""
STEPS, BATCH = 300, 64
LABELLED = "{knn: {}, linear: {}}"
UNLABELLED = "{knn: null, linear: null}    # they need labels; add birds: {use: knn, data: {train: ..., val: ...}}"


class Start(NamedTuple):
    """A spec to begin with. commands: what to type next, in this order; later: and then, with what each makes."""

    text: str
    what: str
    commands: list[str]
    later: dict[str, str]


class _Data(NamedTuple):
    section: str
    samples: int
    labelled: bool
    what: str
    commands: list[tuple[object, ...]]


def start(folder: Path, spec: Path, method: str) -> Start:
    """Return a spec for a folder of images, or of shards with their manifest, that will lie at `spec`.

    Raises SpecError for a method without such a recipe, DataError for a folder without images.
    """
    recipes = [name.removeprefix("photos/") for name in files() if name.startswith("photos/")]
    recipes.remove(SHARED)
    if method not in recipes:
        raise SpecError(f"there is no recipe of '{method}' to begin with; there are {', '.join(recipes)}")
    data = _shards(folder, spec) if (folder / head.NAME).is_file() else _images(folder, spec)
    batch = min(BATCH, 2 ** max(3, int(math.log2(data.samples))))  # of 8 lanes
    text = SPEC.format(
        method=method,
        what=data.what,
        file=shlex.quote(str(spec)),
        name=_scalar(spec.stem),
        data=data.section,
        epochs=math.ceil(STEPS * batch / data.samples),
        batch=batch,
        steps=STEPS,
        factor=_factor(method),
        evals=LABELLED if data.labelled else UNLABELLED,
    )
    commands = [_command(*words) for words in (*data.commands, ("plan", spec), ("run", spec))]
    run = f"{method}:0" if spec.stem == method else f"{spec.stem}/{method}:0"
    later = {
        _command("embed", run, folder, "features.parquet"): "a row for each sample, with its feature",
        _command("sweep", spec): f"once {spec.name} has `ablate`: a row for each setting",
    }
    return Start(text, data.what, commands, later)


def _command(*words: object) -> str:
    return shlex.join(["selfsup", *map(str, words)])


def _factor(method: str) -> str:
    """Return a knob of the method with values that its sweeps look at, such as `hyper.mask_ratio: [0.4, 0.9]`."""
    for knob in knob_lines(run_type(method)):
        if knob.path.startswith("hyper.") and knob.sweep:
            values = (knob.sweep.low, knob.sweep.high) if isinstance(knob.sweep, Range) else knob.sweep.values
            return f"{knob.path}: {json.dumps(values)}"
    raise AssertionError(f"{method} has no knob that a sweep looks at")


def _shards(folder: Path, spec: Path) -> _Data:
    """Return what a folder of indexed shards is; nothing is there to be scored on."""
    samples = manifest.load(str(folder)).num_samples
    what = f"{several(samples, 'sample')} in {folder}"
    return _Data(f"{{train: {_relative(folder, spec)}, val: null}}", samples, False, what, [])


def _images(folder: Path, spec: Path) -> _Data:
    """Return what a folder of images is once it is packed: by its own split, or else by one of a tenth."""
    out, is_split = spec.parent / f"{spec.stem}-shards", all((folder / name).is_dir() for name in ("train", "val"))
    train = folder / "train" if is_split else folder
    sources = find(train.absolute())
    commands: list[tuple[object, ...]] = [("shards", "pack", folder, out, "--split", 0.1)]
    if is_split:
        commands = [("shards", "pack", folder / name, out / name) for name in ("train", "val")]
    section = f"{{train: {_relative(out / 'train', spec)}, val: {_relative(out / 'val', spec)}}}"
    classes = f" of {len(sources.classes)} classes" if len(sources.classes) > 1 else ""
    what = f"{several(len(sources.files), sources.modality)}{classes} in {train}"
    return _Data(section, len(sources.files), bool(classes), what, commands)


def _relative(path: Path, spec: Path) -> str:
    return _scalar(os.path.relpath(path.absolute(), spec.absolute().parent))


def _scalar(text: str) -> str:
    """Return text as YAML has it: quoted, unless it can be nothing but a word."""
    return text if re.fullmatch(r"[A-Za-z.][\w./-]*[A-Za-z]", text, re.ASCII) else json.dumps(text)

"""Trainings that come before a run's own, planned from what its sections `start` and `teacher` name."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from selfsup import conflicts, evaluations, tensors
from selfsup.errors import CheckpointError, SpecError
from selfsup.layers import located
from selfsup.method import Method, names
from selfsup.method import load as load_method
from selfsup.outside import short
from selfsup.pipelines import feasible
from selfsup.pipelines.data.manifest import Manifest
from selfsup.pipelines.objective import blank, blank_encoder
from selfsup.pipelines.planned import PlannedRun
from selfsup.predecessor import SECTIONS, Predecessor
from selfsup.source import Mark, Node
from selfsup.spec import BASELINES, Run, read, run_type, used
from selfsup.stage import read_json, record

Manifests = Callable[[str], Manifest]  # by the URL of shards
DEEPEST = 8  # trainings, one before the other
SHARED = "resources", "stream", "train"  # sections that have to agree where a run's resources replace those of a spec


def before(run: Run, learner: Manifest, home: Path, manifests: Manifests, depth: int = 0) -> dict[str, PlannedRun]:
    """Return the trainings that come before a run, by section. learner: the run's training data.

    Raises SpecError, with the paths of the sections, where there is none such, or where it cannot be trained.
    """
    sections = {name: section for name in SECTIONS if (section := getattr(run, name)) and not is_idle(name, run)}
    if sections and depth == DEEPEST:
        message = f"{DEEPEST} trainings, each named by the next, come before this one: does a spec name itself?"
        raise SpecError(message, *sections)
    return {name: _planned(name, sections[name], run, learner, home, manifests, depth) for name in sections}


def _planned(
    name: str, section: Predecessor, run: Run, learner: Manifest, home: Path, manifests: Manifests, depth: int
) -> PlannedRun:
    place = f"{name}.from"
    try:
        origin = _origin(section.source, home)
    except (SpecError, CheckpointError) as error:
        raise SpecError(str(error), place) from error
    earlier = origin.run.model_copy(update={"resources": run.resources, "evals": evaluations.section(())()})
    if earlier.method in BASELINES and (name, earlier.method) != ("teacher", "untrained"):
        raise SpecError(f"{section.source} trains nothing: it is of {earlier.method}", place)
    if earlier.method in BASELINES and not earlier.backbone.weights:
        message = f"{section.source} is of {earlier.method}, which teaches only at given weights: set backbone.weights"
        raise SpecError(f"{message} in it to a file", place)
    if not origin.key:
        earlier = earlier.model_copy(update={"seed": run.seed if section.seed is None else section.seed})
    for problem in conflicts.problems({part: getattr(earlier, part) for part in SHARED}, origin.root):
        raise SpecError(f"{section.source} with the resources of this run: {problem.message}", place, "resources")
    train = manifests(earlier.data.train) if origin.key or section.data == "own" else learner
    if train is learner and earlier.modality != run.modality:
        raise SpecError(f"{section.source} reads {earlier.modality} data, and this run {run.modality}", place)
    with located(origin.root):
        chained = before(earlier, train, home, manifests, depth + 1)
        planned = PlannedRun(earlier, origin.spec, train, None, home, origin.root, before=chained)
        check(planned)
    if origin.key and planned.pretrain and planned.pretrain.key != origin.key:
        changed = f"{section.source} was trained by another version, or files that it names have changed"
        raise SpecError(f"{changed}; name its spec instead, and it is trained anew", place)
    return planned


def is_idle(name: str, run: Run) -> bool:
    """Return whether a teacher is of no use to a run's knobs, though to others: in a sweep of targets, say."""
    if name != "teacher" or run.method in BASELINES:
        return False
    method = load_method(run.method)
    return method.learns_from is not None and method.lesson(run.hyper) is None


class _Origin(NamedTuple):
    """Settings of an earlier training. root: their places. key: of its stage, if it is known by its id."""

    run: Run
    spec: str
    root: Node
    key: str | None = None


def _origin(source: str, home: Path) -> _Origin:
    note = record(home, source)
    if "/" in source or not note.exists():
        spec = read(source)
        return _Origin(spec.runs[0], spec.name, spec.root)
    content = read_json(note, run=dict, spec=str, pretrain=str | None)
    settings = content["run"]
    kind = run_type(settings["method"], *used(settings))
    return _Origin(
        kind.model_validate_json(json.dumps(settings)), content["spec"], Node(Mark(source), {}), content["pretrain"]
    )


def check(planned: PlannedRun) -> None:
    """Raise SpecError or DataError where a run cannot be trained, or cannot follow on what comes before it."""
    if planned.run.method not in BASELINES:
        _check_teacher(planned)
        _check_start(planned)
    feasible.check(planned)
    if planned.run.starts_whole:
        _check_whole_start(planned)


def _check_teacher(planned: PlannedRun) -> None:
    """Raise SpecError where a method lacks the teacher that it learns from, or has one that teaches it nothing."""
    method, name, teacher = load_method(planned.run.method), short(planned.run.method), planned.teacher
    lesson = method.lesson(planned.run.hyper)
    if lesson and teacher is None:
        what = {"codes": "the codes of a tokenizer", "targets": "targets made of a trained encoder's features"}
        example = "photos/vqvae" if lesson == "codes" else "photos/simclr"
        learns = f"{name} learns from {what.get(lesson, 'the features of a trained encoder')}"
        raise SpecError(f"{learns}; name a training that comes first, such as teacher: {{from: {example}}}", "teacher")
    if teacher and not lesson:
        raise SpecError(f"{name} learns from no teacher; leave it out, or start: from it", "teacher")
    if teacher and lesson in ("codes", "targets") and not teacher.pretrain:
        message = f"{name} learns from the {lesson} of a training, and {teacher.spec} trains nothing"
        raise SpecError(f"{message}; salt and feature_distillation learn from such features", "teacher.from")
    if teacher and lesson == "codes" and load_method(teacher.run.method).codes is Method.codes:
        tokenizers = ", ".join(other for other in names() if load_method(other).codes is not Method.codes)
        wanted = f"{name} learns from the codes of a tokenizer ({tokenizers})"
        raise SpecError(f"{wanted}, and {teacher.method} has none", "teacher.from", "teacher")
    if teacher and (teacher.run.modality, teacher.size.channels) != (planned.run.modality, planned.size.channels):
        seen = [f"{run.run.modality} of {run.size.channels} channels" for run in (teacher, planned)]
        raise SpecError(f"the teacher sees {seen[0]}, the run {seen[1]}", "teacher.from")
    if teacher and teacher.run.modality != "image" and teacher.stats != planned.stats:
        raise SpecError("the teacher's data have another mean and deviation; let it train on the same", "teacher.data")


def _check_start(planned: PlannedRun) -> None:
    """Raise SpecError where the encoder to start from is of another shape."""
    earlier = planned.before.get("start")
    if earlier is None:
        return
    if planned.run.backbone.weights:
        raise SpecError("an encoder starts from one place: leave out start or backbone.weights", "start")
    wanted, given = (blank_encoder(run.run, run.size.channels).trunk.state_dict() for run in (planned, earlier))
    if problem := tensors.mismatches(given, wanted):
        hint = f"its backbone is {earlier.run.backbone.name} at {earlier.run.backbone.image_size} pixels"
        raise SpecError(f"its encoder does not fit: {problem}; {hint}", "start.from", "backbone")


def _check_whole_start(planned: PlannedRun) -> None:
    """Raise SpecError where all weights of an earlier training are not those of this objective."""
    earlier = planned.before["start"]
    if load_method(earlier.run.method) is not load_method(planned.run.method):
        message = f"{earlier.spec} is of {earlier.method}, whose other weights are none of {planned.method}"
        raise SpecError(f"{message}; leave weights out, and the encoder starts from its", "start.weights", "method")
    wanted, given = (blank(run.run, run.info).state_dict() for run in (planned, earlier))
    if problem := tensors.mismatches(given, wanted):
        raise SpecError(f"its weights do not fit: {problem}; give both the same knobs and data", "start.weights")

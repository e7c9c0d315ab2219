"""Run, the settings of one training, and Spec, the YAML file that asks for some Runs.

    name: photos
    method: mae
    data: {train: bundled://photos/train, val: bundled://photos/val}
    train: {duration: {epochs: 10}}
    evals: {knn: {}, flowers: {use: linear, data: {train: ..., val: ...}}}

`extends: other.yaml` takes all that the file leaves out from another; `extends: in1k/mae` from a shipped spec.
A baseline needs no torch.
"""

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from pydantic import BeforeValidator, PrivateAttr, ValidationError, WithJsonSchema, create_model, field_validator

from selfsup import (
    augmentation,
    conflicts,
    evaluations,
    evaluator,
    explain,
    input_kinds,
    modality,
    outside,
    predecessor,
)
from selfsup.errors import SpecError
from selfsup.input_kinds import InputKinds
from selfsup.knob import SEEDS, Knobs, group, knob
from selfsup.layers import Layers, find, plain
from selfsup.naming import name_problem
from selfsup.predecessor import SECTIONS, Predecessor
from selfsup.published import Published
from selfsup.renamed import current
from selfsup.resources import Resources
from selfsup.sections import BASELINES, Backbone, Data, Duration, Embed, Optim, Paint, Stream, Train
from selfsup.source import Mark, Node, Problem, Where, refusal

if TYPE_CHECKING:
    from selfsup.method import Method

__all__ = ["BASELINES", "Backbone", "Data", "Duration", "Embed", "Optim", "Resources", "Run", "Spec", "Stream", "Train"]
__all__ += ["WHOLE", "check", "methods", "read", "run_type", "spec_type", "used"]

MOST_SEEDS = 1000
# one value each: a new unit replaces the old
BARE = {"backbones": ("vit", "cnn"), "mask_units": False, "beside": (), "one_trunk": False}  # what a baseline needs
WHOLE: tuple[Where, ...] = (("train", "duration"), ("optim", "warmup"), ("evals", "every"))


class Nothing(Knobs):
    """A baseline has no knobs."""


class Anything(Knobs, extra="allow"):
    """The knobs of a method that is still to be named: any may be right."""


class _Sections(Knobs):
    method: str = knob(..., "an objective (selfsup describe lists them), or a baseline: pixels, untrained")
    data: Data = knob(..., "the shards, as {train: ..., val: ...}")
    input: Knobs = knob(Nothing(), "the kind of data, such as {audio: {}}; images by default")
    backbone: Backbone = knob(Backbone(), "the encoder")
    towers: Knobs = knob(Nothing(), "encoders of what lies beside samples, as {audio: {...}}; by default as `backbone`")
    start: Predecessor | None = knob(None, SECTIONS["start"])
    teacher: Predecessor | None = knob(None, SECTIONS["teacher"])
    hyper: Knobs = knob(Nothing(), "the method's own knobs")
    augment: Knobs | None = knob(None, "a photometric operation of your own on training views: {use: ./mine.py}")
    optim: Optim = knob(Optim(), "the optimizer and its schedule")
    train: Train = knob(..., "the loop, at least {duration: ...}")
    stream: Stream = knob(Stream(), "the order of samples")
    embed: Embed = knob(Embed(), "how samples become features for the evaluations")
    evals: Knobs = knob(Nothing(), "evaluations by name, such as {knn: {}, flowers: {use: linear, data: ...}}")
    visualize: bool = knob(False, "pictures of the encoder: neighbors, patches in color, attention, a t-SNE map")
    paint: Paint | None = knob(None, "images painted from frozen features, and what they share: {} or {steps: 500}")
    resources: Resources = knob(Resources(), "machines to run on; changes no result", result=False)
    published: Published | None = knob(None, "numbers that the unchanged recipe is known to reach", result=False)

    @property
    def starts_whole(self) -> bool:
        """Return whether it goes on with all weights of the training that it starts from, not the encoder's alone."""
        return self.start is not None and self.start.is_whole

    @property
    def begun(self) -> frozenset[str]:
        """Return the modalities whose encoders begin with weights of a file, or of the training that it starts from."""
        kinds = self.kinds
        towers = (name for name in kinds.beside if not modality.load(name).is_companion)
        backbones = {kinds.name: self.backbone} | {name: kinds.towers.get(name, self.backbone) for name in towers}
        given = {name for name, backbone in backbones.items() if backbone.weights}
        earlier = {kinds.name, *(kinds.beside if self.starts_whole else ())} if self.start else set()
        return frozenset(given | earlier)

    @property
    def worker_counts(self) -> tuple[int, ...]:
        """Return the numbers of workers that may train it, ascending."""
        return self.resources.counts(self.stream.lanes)

    @property
    def modality(self) -> str:
        """Return the modality that the backbone is for."""
        return self.kinds.name

    @property
    def beside(self) -> tuple[str, ...]:
        """Return the modalities beside samples that the method learns from, too."""
        return tuple(self.kinds.beside)

    @property
    def others(self) -> tuple[str, ...]:
        """Return the modalities that the method could learn from beside samples, and that may be samples themselves."""
        others = () if self.method in BASELINES else _method(self.method).beside
        return tuple(name for name in others if name in modality.names())

    @property
    def kinds(self) -> InputKinds:
        """Return the modality that the backbone is for, and those beside it."""
        kind = None if self.method in BASELINES else _method(self.method)
        if kind is None or not kind.beside:
            return input_kinds.chosen(self.input)
        kinds = input_kinds.chosen(self.input, kind.beside, kind.views(self.hyper).beside)
        given = {name: tower for name, tower in self.towers if tower is not None and name in kinds.beside}
        return kinds._replace(towers=given)

    def __reduce__(self) -> tuple[Any, ...]:  # its class is made by create_model: no import finds it
        return _revive, (isinstance(self, Run), self.model_dump(exclude_unset=True))


def _revive(is_run: bool, settings: dict[str, Any]) -> "Run | Spec":
    kind = run_type if is_run else spec_type
    return kind(settings["method"], *used(settings)).model_validate(settings)


class Run(_Sections):
    """One training of one method from one seed. The concrete classes, `run_type(method)`, know that method's knobs."""

    seed: int = knob(..., "of weights, order, crops, masks: everything that is drawn", ge=0, lt=SEEDS)


def _seeds(value: object) -> tuple[int, ...]:
    if type(value) is int:
        value = range(min(value, MOST_SEEDS + 1))
    seeds = tuple(value) if isinstance(value, (range, tuple, list)) else ()
    sound = all(type(seed) is int and 0 <= seed < SEEDS for seed in seeds)
    if not 0 < len(seeds) <= MOST_SEEDS or not sound or len(set(seeds)) < len(seeds):
        raise ValueError(f"expected how many seeds (1 to {MOST_SEEDS}), or a list of different ones (0 to 2³² - 1)")
    return seeds


Seeds = Annotated[
    tuple[int, ...],
    BeforeValidator(_seeds),
    WithJsonSchema(
        {
            "oneOf": [
                {"type": "integer", "minimum": 1, "maximum": MOST_SEEDS},
                {"type": "array", "items": {"type": "integer"}},
            ]
        }
    ),
]


@dataclass(frozen=True)
class _Written:
    """The places of a spec's values, which do not count when specs are compared."""

    root: Node | None = field(default=None, compare=False)


class Spec(_Sections):
    """A spec file: one Run per seed."""

    _written: _Written = PrivateAttr(_Written())

    name: str = knob(..., "the name of the runs in MLflow and in tables", min_length=1)
    seeds: Seeds = knob((0,), "how many, counted from 0; or a list of them")
    baselines: bool = knob(True, "raw pixels and the untrained encoder in the same table")

    @field_validator("name")
    @classmethod
    def _fit(cls, name: str) -> str:
        if why := name_problem(name):
            raise ValueError(f"expected {why}")
        return name

    @property
    def root(self) -> Node:
        """Return its values with their places; an empty mapping for a spec that was not read from a file."""
        return self._written.root or Node(Mark(self.name), {})

    @property
    def runs(self) -> tuple[Run, ...]:
        common = {name: getattr(self, name) for name in _Sections.model_fields}
        kind = run_type(self.method, *used(self.model_dump(include={"evals", "augment"})))
        return tuple(kind(**common, seed=seed) for seed in self.seeds)


Section = TypeVar("Section", bound=_Sections)


@functools.cache
def run_type(method: str, uses: evaluations.Uses = (), augment: str | None = None) -> type[Run]:
    """Return the Run with that method's own knobs, evaluations of these names, and the knobs of an augmentation.

    Imports the method, and so torch, unless it is a baseline. Raises SpecError where there is no such method.
    """
    return _concrete(Run, method, uses, augment)


@functools.cache
def spec_type(method: str | None, uses: evaluations.Uses = (), augment: str | None = None) -> type[Spec]:
    """Return the Spec with the knobs that `run_type` has; method None: of any."""
    return _concrete(Spec, method, uses, augment)


def used(tree: Mapping[str, Any]) -> tuple[evaluations.Uses, str | None]:
    """Return the evaluations and the augmentation that a spec names. tree: as written, valid or not."""
    return evaluations.uses(tree), augmentation.used(tree)


def _concrete(base: type[Section], method: str | None, uses: evaluations.Uses, augment: str | None) -> type[Section]:
    names = (method,) if method else tuple(methods())
    hyper, inputs, towers = _hyper(method) if method else Anything, input_kinds.inputs(), input_kinds.towers()
    evals = evaluations.section(uses)
    required = any(field.is_required() for field in hyper.model_fields.values())
    docs = {name: field.description or "" for name, field in base.model_fields.items()}
    fields: Any = {
        "method": (Literal[names], knob(..., docs["method"])),
        "hyper": (hyper, knob(... if required else hyper(), docs["hyper"])),
        "input": (inputs, knob(inputs(), docs["input"])),
        "towers": (towers, knob(towers(), docs["towers"])),
        "evals": (evals, knob(evals(), docs["evals"])),
        "augment": (augmentation.section(augment) | None, knob(None, docs["augment"])),
    } | predecessor.fields()
    if method in BASELINES:
        unread = Train(duration=Duration(steps=1), batch=Stream().lanes)
        fields["train"] = (Train, knob(unread, docs["train"]))
    title = outside.short(method) if method else method
    return create_model(f"{title}_{base.__name__.lower()}", __base__=base, **fields)


def methods() -> list[str]:
    """Return the values of `method:`: baselines and shipped objectives, sorted."""
    import selfsup.method

    return sorted([*BASELINES, *selfsup.method.names()])


def _hyper(method: str) -> type[Knobs]:
    return Nothing if method in BASELINES else _method(method).Hyper


def _method(name: str) -> "type[Method]":
    import selfsup.method

    if not outside.is_outside(name) and not selfsup.method.is_known(name):
        evaluated = f"an evaluator is: selfsup describe --evals {name}" if name in evaluator.names() else ""
        hint = evaluated or explain.did_you_mean(name, methods()) or f"there are {', '.join(methods())}"
        raise SpecError(f"no method is called '{name}' ({hint})")
    return selfsup.method.load(name)


def read(path: str | Path, overrides: Sequence[str] = ()) -> Spec:
    """Return the spec in a YAML file, or a shipped one, under overrides such as "optim.lr=1e-3".

    Raises one SpecError with all mistakes, each with its place.
    """
    layers = Layers(WHOLE)
    root = layers.read(Path(path), overrides)
    spec, problems = check(root, layers.problems)
    if spec is None:
        raise refusal([*layers.problems, *problems])
    return spec


def check(root: Node, known: Sequence[Problem] = ()) -> tuple[Spec | None, list[Problem]]:
    """Return the spec in a tree, or None and the problems. known: problems of the tree's text."""
    root = outside.rooted(root)
    tree = plain(root)
    method, unusable = known_method(root)
    unusable += [*evaluations.unusable(root), *augmentation.unusable(root)]
    kind = spec_type(method, *used(tree))
    twice: list[Problem] = []
    root = current(root, kind, twice)
    tree = plain(root)
    known = [*known, *unusable]
    marks = {problem.mark for problem in known}  # a number that cannot be read is not reported again as a wrong type
    wrong = list(_mistakes(kind, tree, root))
    problems = [*unusable, *(problem for problem in wrong if problem.mark not in marks)]
    problems += [*twice, *conflicts.problems(_sound(kind, tree, [*known, *wrong, *twice]), root)]
    if problems or known:
        return None, problems
    spec = kind.model_validate(tree)
    spec._written = _Written(root)
    return spec, []


def known_method(root: Node) -> tuple[str | None, list[Problem]]:
    """Return the method of a rooted tree, None where it cannot be used, and the problems of one from outside."""
    entry = find(root, ("method",))
    if entry is None or not isinstance(method := entry.node.value, str):
        return None, []
    if not outside.is_outside(method):
        return method if method in methods() else None, []
    try:
        _method(method)
    except SpecError as error:
        return None, [Problem(entry.node.mark, ("method",), error.bare)]
    return method, []


def _mistakes(kind: type[Spec], tree: Any, root: Node) -> Iterator[Problem]:
    try:
        kind.model_validate(tree)
    except ValidationError as error:
        yield from explain.problems(error, kind, root, _owned() | evaluations.hints(tree))


def _owned() -> dict[str, str]:
    """Return, for the path of each knob of a shipped method, `a knob of METHOD`."""
    import selfsup.method

    hyper = {name: selfsup.method.load(name).Hyper for name in selfsup.method.names()}
    return {f"hyper.{name}": f"a knob of {method}" for method in hyper for name in hyper[method].model_fields}


def _sound(kind: type[Spec], tree: Mapping[str, Any], problems: Sequence[Problem]) -> dict[str, Any]:
    """Return the method and the sections without a mistake of their own, to be checked against each other."""
    wrong = {problem.where[0] for problem in problems if problem.where}
    if "method" in wrong:
        wrong.add("hyper")  # its knobs are not known
    fields = {name: field for name, field in kind.model_fields.items() if name in tree or field.default is not None}
    sections = {name: group(field.annotation) for name, field in fields.items() if name not in wrong}
    values = {name: tree.get(name, fields[name].default) for name in sections}
    sound: dict[str, Any] = {
        name: cls.model_validate(values[name]) for name, cls in sections.items() if cls and values[name] is not None
    }
    if "method" not in wrong:
        is_baseline = (method := tree["method"]) in BASELINES
        sound["method"] = outside.short(method)
        sound |= BARE if is_baseline else _needs(method)
    return sound


def _needs(method: str) -> dict[str, Any]:
    """Return the encoders that a method can train, what it reads beside samples, and the check of its knobs."""
    kind, names = _method(method), ("backbones", "mask_units", "beside", "one_trunk", "check")
    return {name: getattr(kind, name) for name in names}

"""The section `evals` of a spec: evaluations by name, each an instance of an evaluator.

    evals: {knn: {}, flowers: {use: linear, data: {train: ..., val: ...}}, few: {use: knn, k: 5}}
    evals: {mine: {use: ./mine.py}, other: {use: my_lab.evals:Other}}
    evals: {every: {epochs: 10}, knn: {}}
    evals: {flowers: {use: linear, data: ...}, pets: {use: linear, data: ...}, means: {transfer: [flowers, pets]}}

`use` defaults to the name, `data` to the run's own. `every` and `means` are no evaluations: one asks for all of them
during training, the other for means of their metrics, such as eval/transfer/top1.
"""

import functools
import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from pydantic import create_model

from selfsup import evaluator, outside
from selfsup import means as averages
from selfsup.errors import SpecError
from selfsup.evaluator import Evaluator, Metric
from selfsup.explain import did_you_mean
from selfsup.feature_choice import FeatureChoice
from selfsup.knob import Knobs, knob
from selfsup.layers import find
from selfsup.means import Mean
from selfsup.naming import WORD
from selfsup.sections import Duration, EvalData
from selfsup.source import Node, Problem

Uses = tuple[tuple[str, str | None], ...]  # (name, evaluator) of evaluations with a name of their own; None: taken back
USE = "which evaluation it is; null: the one that it is named after"
EVERY, MEANS = WORDS = "every", "means"  # the keys that are no evaluations
EVERY_DOC = "how often all of them are made of the encoder as it trains, as {epochs: 10}; null: once it is trained"


MEANS_DOC = "means of evaluations, such as {transfer: [flowers, pets]}: of each score that all of these have"


class Evaluation(NamedTuple):
    """One instance. hyper: the evaluator's own knobs. data: None where it is the run's."""

    name: str
    use: str
    hyper: Knobs
    data: EvalData

    @property
    def evaluator(self) -> type[Evaluator]:
        return evaluator.load(self.use)

    @property
    def feature(self) -> FeatureChoice:
        """Return the feature of an encoder that it reads."""
        return self.evaluator.reads_of(self.hyper)

    @property
    def has_curve(self) -> bool:
        """Return whether it is made during training, too: not where it trains the encoder on."""
        return self.feature.kind != "logits"

    @property
    def metrics(self) -> dict[str, Metric]:
        """Return them by the name that MLflow has them under: `eval/flowers/top1`."""
        return {f"eval/{self.name}/{name}": metric for name, metric in self.evaluator.yields(self.hyper).items()}


class Unknown(Knobs, extra="allow"):
    """An evaluation of which nothing is known while `use` is wrong."""


def listed(section: Knobs) -> dict[str, Evaluation]:
    """Return the evaluations of a run, by name and in the order of names."""
    return {name: _evaluation(name, knobs) for name, knobs in section if name not in WORDS and knobs is not None}


def every(section: Knobs) -> Duration | None:
    """Return how often the evaluations of a run are made during training; None where they are not."""
    return getattr(section, EVERY, None)


def means(section: Knobs, among: Mapping[str, Evaluation]) -> dict[str, Mean]:
    """Return the means of a run's evaluations by the names of their metrics, those all of whose members are `among`."""
    suite, asked = _suite(among), getattr(section, MEANS, None) or {}
    complete = {name: members for name, members in asked.items() if suite.keys() >= set(members)}
    return {
        key: mean for name, members in complete.items() for key, mean in averages.metrics(name, members, suite).items()
    }


def with_curves(section: Knobs) -> set[str]:
    """Return the names of the evaluations, and of the means of them, that are made during training, too."""
    made = {name for name, evaluation in listed(section).items() if evaluation.has_curve}
    asked = getattr(section, MEANS, None) or {}
    return made | {name for name, members in asked.items() if made.issuperset(members)}


def scales(section: Knobs, among: Mapping[str, Evaluation]) -> dict[str, Metric]:
    """Return the metrics of evaluations and of their means, by name."""
    own = {name: metric for evaluation in among.values() for name, metric in evaluation.metrics.items()}
    return own | {name: mean.scale for name, mean in means(section, among).items()}


def unfit_means(section: Knobs) -> Iterator[tuple[str, str]]:
    """Yield the name of each mean that there cannot be, and why."""
    known = listed(section)
    for name, members in (getattr(section, MEANS, None) or {}).items():
        taken = f"{name} is the name of an evaluation; choose another" if name in {*known, *evaluator.names()} else ""
        if why := unfit(name) or taken or averages.problem(members, _suite(known)):
            yield name, why


def _suite(among: Mapping[str, Evaluation]) -> dict[str, Mapping[str, Metric]]:
    return {name: evaluation.evaluator.yields(evaluation.hyper) for name, evaluation in among.items()}


def _evaluation(name: str, knobs: Any) -> Evaluation:
    use = knobs.use or name
    hyper = evaluator.load(use).Hyper
    values = {knob: getattr(knobs, knob) for knob in hyper.model_fields}
    return Evaluation(name, use, hyper.model_validate(values), knobs.data)


def uses(tree: Mapping[str, Any]) -> Uses:
    """Return the evaluations of a spec that say `use`, or null, by name. tree: as it is written."""
    return tuple((name, use) for name, use in sorted(_uses(tree)) if not unfit(name))


def _uses(tree: Mapping[str, Any]) -> list[tuple[str, str | None]]:
    known = evaluator.names()
    entries = _entries(tree).items()
    named = [(name, entry["use"]) for name, entry in entries if isinstance(entry, dict) and entry.get("use")]
    taken = [(name, None) for name, entry in entries if entry is None and not _stands_for(name, known)]
    return [*((name, use if _is_choice(use) else "") for name, use in named), *taken]


def _stands_for(name: str, known: Sequence[str]) -> bool:
    return name in known or bool(did_you_mean(name, known))


def _is_choice(use: object) -> bool:
    return isinstance(use, str) and (evaluator.is_known(use) or not outside.is_outside(use))


def unusable(root: Node) -> Iterator[Problem]:
    """Yield what is wrong with the evaluators from outside that a rooted tree names."""
    for place in outside.places(root):
        entry = find(root, place)
        if entry and place[0] == "evals" and outside.is_outside(use := entry.node.value):
            try:
                evaluator.load(str(use))
            except SpecError as error:
                yield Problem(entry.node.mark, place, error.bare)


def metrics(tree: Mapping[str, Any]) -> dict[str, Metric]:
    """Return the metrics of a spec's evaluations, by name. tree: as written, valid or not."""
    named = {name: entry.get("use") or name for name, entry in _entries(tree).items() if isinstance(entry, dict)}
    suite = {name: evaluator.load(use).metrics for name, use in named.items() if evaluator.is_known(use)}
    own = {f"eval/{name}/{metric}": scale for name, known in suite.items() for metric, scale in known.items()}
    asked = tree["evals"].get(MEANS) if own else None
    valid = {name: of for name, of in asked.items() if isinstance(of, list)} if isinstance(asked, dict) else {}
    means = [averages.metrics(name, of, suite) for name, of in valid.items() if not averages.problem(of, suite)]
    return own | {name: mean.scale for made in means for name, mean in made.items()}


def _entries(tree: Mapping[str, Any]) -> dict[str, Any]:
    entries = tree.get("evals")
    return {name: entry for name, entry in entries.items() if name not in WORDS} if isinstance(entries, dict) else {}


def hints(tree: Mapping[str, Any]) -> dict[str, str]:
    """Return, by path, what is wrong with entries of `evals` that are no evaluation."""
    known = evaluator.names()
    which = f"a name of your own says which evaluation it is, as in {{use: {known[0]}}}: {', '.join(known)}"
    wrong = {f"evals.{name}": unfit(name) or which for name in _entries(tree) if name not in known}
    return wrong | {f"evals.{word}.use": unfit(word) for word in WORDS}


def unfit(name: str) -> str:
    """Return why a name cannot be that of an evaluation and its metrics; "" where it can."""
    if not WORD.fullmatch(name):
        return "a name of an evaluation is a letter, then letters, digits, - and _, at most 60 together"
    return f"{name} is a word of the program; choose another name" if name in WORDS or hasattr(Knobs, name) else ""


@functools.cache
def section(named: Uses = ()) -> type[Knobs]:
    """Return the class of `evals`: an optional group for every evaluator, and for every evaluation of another name."""
    fields: Any = {
        name: (None if use is None else kind(use) | None, knob(None, _doc(use)))
        for name, use in sorted((dict(zip(evaluator.names(), evaluator.names(), strict=True)) | dict(named)).items())
    }
    fields[EVERY] = (Duration | None, knob(None, EVERY_DOC, result=False))
    fields[MEANS] = (dict[str, tuple[str, ...]] | None, knob(None, MEANS_DOC, result=False))
    return create_model("Evals", __base__=Knobs, **fields)


def _doc(use: str | None) -> str:
    doc = inspect.getdoc(evaluator.load(use)) if use and evaluator.is_known(use) else None
    return " ".join((doc or f"{use}").partition("\n\n")[0].split())  # one paragraph on one line: a cell of `describe`


@functools.cache
def kind(use: str) -> type[Knobs]:
    """Return the class of an evaluation: the knobs of its evaluator, `use` and `data`."""
    is_own = outside.is_outside(use)
    choice: Any = Literal[(use,) if is_own else tuple(evaluator.names())]
    if not evaluator.is_known(use):
        return create_model("Evaluation", __base__=Unknown, use=(choice, knob(..., USE)))
    assert not {"use", "data"} & evaluator.load(use).Hyper.model_fields.keys(), f"{use}: use and data are taken"
    fields: Any = {
        "use": (choice | None, knob(None, USE)),
        "data": (EvalData, knob(EvalData(), "the data that it is made on; null: the run's own")),
    }
    return create_model(f"{outside.short(use)}_evaluation", __base__=evaluator.load(use).Hyper, **fields)


def schema(ref: str) -> dict[str, Any]:
    """Return the JSON schema of an evaluation with a name of its own. ref: where definitions lie, `{model}` in it."""
    kinds = [
        {"$ref": ref.format(model=kind(use).__name__), "properties": {"use": {"const": use}}, "required": ["use"]}
        for use in evaluator.names()
    ]
    own = {"type": "object", "properties": {"use": {"type": "string", "pattern": outside.PATTERN}}, "required": ["use"]}
    return {"anyOf": [*kinds, own, {"type": "null"}]}

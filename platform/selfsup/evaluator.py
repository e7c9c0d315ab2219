"""The interface of downstream protocols, of which `evals/` holds one a file. Only running one imports torch."""

import abc
import math
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import field_validator

from selfsup import outside, registry
from selfsup.bounded import at_once
from selfsup.errors import DataError, SpecError
from selfsup.explain import did_you_mean
from selfsup.feature_choice import FeatureChoice, FeatureKnobs, Predicted, Token, TokenViewKnobs
from selfsup.knob import Knobs
from selfsup.naming import STAGES, WORD

EVALS = "selfsup.evals"


class Features(NamedTuple):
    """Features of a labelled data set by a frozen encoder.

    train: (N, D) float32, or (N, T, D) for an evaluator that reads tokens. train_label: (N,) int64 in [0, classes).
    val: (M, D). val_label: (M,). Of an evaluator of another target labels are -1 where there are none.
    train_map, val_map: of one whose target is a map, (N, S, S) and (M, S, S), of the whole image: tokens are squares of
    it of the same size, row by row. seg: int32 in [0, classes), -1 where there is none. inst: int32, 0 where there is
    no object. depth: float32, meters, 0 where it is unknown. objects: seg and inst, (N, 2, S, S) and (M, 2, S, S).
    disparity: float32, pixels of S that a point lies farther to the left in a second view, 0 where that does not show
    it. parts: vectors of the encoder's width that D is made of; 1 of raw samples. views: (V, K, D) or (V, K, T, D), of
    V versions of K samples, as its FeatureChoice asks for them. among: (C,), the classes that may be named; None: all.
    right: (M, C), the classes that are right of each validation sample, one or several; None: its label.
    """

    train: NDArray[np.float32]
    train_label: NDArray[np.int64]
    val: NDArray[np.float32]
    val_label: NDArray[np.int64]
    classes: int
    train_map: "Map | None" = None
    val_map: "Map | None" = None
    parts: int = 1
    views: NDArray[np.float32] | None = None
    among: NDArray[np.bool_] | None = None
    right: NDArray[np.bool_] | None = None

    @property
    def tables(self) -> list[NDArray[np.float32]]:
        """Return features to train on, (N, D) each, epoch by epoch in turn: of augmented views, where there are any."""
        return [self.train] if self.views is None else list(self.views)

    @property
    def handicap(self) -> NDArray[np.float32]:
        """-> (C,): what is added to the logits of all classes, so that one is named that may be"""
        none = np.zeros(self.classes, np.float32)
        return none if self.among is None else np.where(self.among, none, np.float32(-np.inf))

    def hits(self, guess: NDArray[np.int64]) -> "Hits":
        """(M,) or (M, k), classes, -1 for no guess -> (M,): whether one that is guessed of a sample is right"""
        guess = guess.reshape(len(guess), -1)
        if self.right is None:
            right = guess == self.val_label[:, None]
        else:
            right = np.take_along_axis(self.right, guess, 1) & (guess >= 0)
        hits: Hits = right.any(1)
        return hits


Map = NDArray[Any]  # a value for each pixel
METRIC = ("depth", "disparity")  # annotations with a length for each pixel
MAPS = ("seg", "inst", *METRIC)  # and with the number of a class or an object
DENSE = {name: (name,) for name in MAPS} | {"objects": ("seg", "inst")}  # targets that are maps, and which
Hits = NDArray[np.bool_]  # (M,), whether each validation sample was right
Score = float | Hits  # an accuracy says of each sample whether it was right
Better = Literal["max", "min"]


class Metric(NamedTuple):
    """A number that an evaluator yields. better: None of one that is no score, such as a rate that was chosen.

    headline: whether it is a column of tables, and may be expected and claimed.
    """

    unit: str = "%"
    better: Better | None = "max"
    headline: bool = True

    @property
    def sign(self) -> int:
        """Return 1 where higher is better, else -1."""
        return -1 if self.better == "min" else 1

    @property
    def ends(self) -> tuple[float, float]:
        """Return the least and the largest possible value, infinite where the unit has no bounds."""
        return (0.0, 100.0) if self.unit == "%" else (-math.inf, math.inf)


ACCURACY = Metric()
CHECKED = 2**26  # numbers that are usually checked at once


class Few(NamedTuple):
    """Too few labelled training samples. knob: the one that asks for more, "" where none does."""

    knob: str
    message: str


def all_positive(knob: str, choice: str) -> Any:
    """Return a validator of a knob that lists choices: it raises ValueError where one is not greater than 0."""

    def check(values: tuple[float, ...]) -> tuple[float, ...]:
        if min(values, default=1) <= 0:
            raise ValueError(f"every {choice} must be greater than 0")
        return values

    return field_validator(knob)(check)


def none_negative(knob: str, choice: str) -> Any:
    """Return a validator of a knob that lists choices: it raises ValueError where one is less than 0."""

    def check(values: tuple[float, ...]) -> tuple[float, ...]:
        if min(values, default=0) < 0:
            raise ValueError(f"no {choice} may be less than 0")
        return values

    return field_validator(knob)(check)


def nothing_held_out(choice: str, labelled: int) -> Few | None:
    """Return why so many samples have no tenth to choose on; None where they do. choice: such as "C"."""
    few = f"{choice} is chosen on a tenth of the labelled training samples: it needs 2 or more, not {labelled}"
    return Few("", few) if labelled < 2 else None


class Evaluator(abc.ABC):
    """A downstream protocol: frozen features in, named scores out.

    reads: one vector a sample, which FeatureKnobs choose; or one a token, of which FeatureChoice has three kinds;
    or what a head predicts that `training` trained with the encoder, for validation samples alone: logits, or where the
    target is a map, a number for each pixel, (M, S * S, 1); such a map as the objective's own decoder paints it of
    samples alone: decoded_depth, decoded_seg; matched, the place of the own among N captions and scores of all,
    (M, 1 + N); or what two towers make of these: pairs, (M, 2, D), or
    cosines with prompts of classes, (M, C). target: the field of a sample that is predicted: its class, or one of
    DENSE, whose tokens are of the whole image, squashed to a square; None without labels. metrics: all that `run` may
    yield. classifies: whether it names a class for each validation sample, to whose logits it adds the features'
    `handicap`, and which their `hits` compare with what is right. cheap: knobs of a protocol whose defaults take
    minutes, with which `selfsup check-evaluator` runs it.
    """

    Hyper: ClassVar[type[Knobs]]
    reads: ClassVar[Literal["pooled"] | Token | Predicted] = "pooled"
    target: ClassVar[Literal["class", "seg", "inst", "depth", "disparity", "objects"] | None] = "class"
    metrics: ClassVar[Mapping[str, Metric]]
    classifies: ClassVar[bool] = False
    cheap: ClassVar[Mapping[str, Any]] = MappingProxyType({})

    @abc.abstractmethod
    def __init__(self, hyper: Knobs) -> None: ...

    @classmethod
    def reads_of(cls, hyper: Any) -> FeatureChoice:
        """Return the feature that `run` reads with these knobs."""
        if isinstance(hyper, (FeatureKnobs, TokenViewKnobs)):
            return hyper.choice
        return FeatureChoice(cls.reads, squashed=cls.target in DENSE)

    @classmethod
    def training(cls, hyper: Any) -> Mapping[str, Any] | None:  # noqa: ARG003
        """Return the training that makes the logits that it reads, by sections of a spec; None where it reads features.

        They are method, hyper and optim; those settings of backbone, train and stream that are not the run's; and under
        `share` that of the labelled training samples, as many of each class, where it is of a part of them.
        """
        return None

    @classmethod
    def lacks(cls, hyper: Any, labelled: int, classes: int) -> Few | None:  # noqa: ARG003
        """Return why so many labelled training samples of so many classes are too few; None where they do."""
        return None

    @classmethod
    def yields(cls, hyper: Any) -> Mapping[str, Metric]:  # noqa: ARG003
        """Return those of `metrics` that `run` yields with these knobs."""
        return cls.metrics

    @abc.abstractmethod
    def run(self, features: Features, *, seed: int, device: str = "cpu") -> Iterator[tuple[str, Score]]:
        """Yield (name, score). A pure function of (features, hyper, seed); `check`s the features first."""


def numbers(scores: Mapping[str, Score]) -> dict[str, float]:
    """Return scores as numbers: an accuracy is the percentage of the validation samples that are right."""
    return {
        name: 100 * float(score.mean()) if isinstance(score, np.ndarray) else score for name, score in scores.items()
    }


def check(features: Features, *, labelled: bool = True, learns: bool = True) -> None:
    """Raise DataError for features that no protocol can score: an accuracy of them would look like a number.

    labelled: whether the protocol reads labels. learns: whether it learns from train, of which there may be none else.
    """
    train = ("train", features.train, features.train_label)
    has_train = learns or len(features.train) > 0
    for part, value, label in (*([train] if has_train else []), ("val", features.val, features.val_label)):
        assert value.ndim in (2, 3), f"{part} features must be (N, D) or (N, T, D), not {value.shape}"
        assert label.shape == value.shape[:1], f"{len(value)} {part} features, {len(label)} labels"
        if len(value) == 0:
            raise DataError(f"evaluation: no {part} sample has {'both a label and ' * labelled}a file that decodes")
        if bad := _not_finite(value):
            raise DataError(f"evaluation: {bad} of {len(value)} {part} features are not finite: the encoder diverged")
        if labelled and (label.min() < 0 or label.max() >= features.classes):
            labels = f"{label.min()} to {label.max()}"
            raise DataError(f"evaluation: {part} labels must be 0 to {features.classes - 1}, found {labels}")
    if features.views is not None and (bad := sum(map(_not_finite, features.views))):
        raise DataError(f"evaluation: {bad} features of views are not finite: the encoder diverged")
    if labelled and has_train and (features.train_label == (first := features.train_label[0])).all():
        only = f"class {first}, the only one of {len(features.train_label)} labelled train samples"
        raise DataError(f"evaluation: every guess would be {only}: an accuracy says nothing")


def check_predicted(features: Features, known: Callable[[Map], Map], what: str) -> tuple[Map, Map]:
    """Return predictions for the maps of val, and these maps, (M, S, S) each.

    Raises DataError where none of their pixels is `known`. what: which pixels are.
    """
    check(features, labelled=False, learns=False)
    _, val_map = maps_of(features)
    if not any(known(one).any() for one in val_map):
        raise DataError(f"evaluation: no pixel of val {what}")
    return features.val.reshape(val_map.shape), val_map


def check_map(features: Features) -> tuple[Map, Map]:
    """Return the maps of train and val. Raises DataError where they show no two classes in train, or none in val."""
    maps = maps_of(features)
    shown = [np.unique(np.concatenate([np.unique(one) for one in part])) for part in maps]
    train, val = (values[values >= 0] for values in shown)
    if len(train) < 2 or not len(val):
        counts = f"{len(train)} classes in those of train, {len(val)} in those of val"
        raise DataError(f"evaluation: maps of pixels show {counts}: a score says nothing")
    return maps


def maps_of(features: Features) -> tuple[Map, Map]:
    """Return the maps of train and val, which an evaluator of a map is given."""
    train, val = features.train_map, features.val_map
    assert train is not None, "no maps of train"
    assert val is not None, "no maps of val"
    return train, val


def _not_finite(value: NDArray[np.float32]) -> int:
    """Return how many samples have a number that is not finite. They may lie on disk: a part is read at a time."""
    rows = at_once(CHECKED, math.prod(value.shape[1:]))
    parts = (value[start : start + rows].reshape(-1, value.size // len(value)) for start in range(0, len(value), rows))
    return sum(int((~np.isfinite(part)).any(1).sum()) for part in parts)


def names() -> list[str]:
    """Return the names of all evaluators, sorted."""
    return registry.modules(EVALS)


def load(name: str) -> type[Evaluator]:
    """Return the evaluator in `evals/<name>.py`, in a file of the user's, or `module:Class`.

    Raises SpecError where there is none, where one from outside cannot be imported, or is no complete evaluator.
    """
    if outside.is_outside(name):
        return _with_metrics(outside.load(name, Evaluator, (*STAGES, *names())), name)
    if name not in names():
        hint = did_you_mean(name, names()) or f"there are {', '.join(names())}"
        raise SpecError(f"no evaluator is called '{name}' ({hint})")
    kind: type[Evaluator] = registry.only(EVALS, name, Evaluator)
    return kind


def is_known(name: object) -> bool:
    """Return whether an evaluator of that name can be loaded."""
    if not isinstance(name, str) or not outside.is_outside(name):
        return name in names()
    try:
        load(name)
    except SpecError:
        return False
    return True


def _with_metrics(kind: type[Evaluator], name: str) -> type[Evaluator]:
    """Return an evaluator with valid `metrics`. Raises SpecError for any other."""
    metrics = getattr(kind, "metrics", None)
    if not (
        isinstance(metrics, Mapping) and metrics and all(isinstance(metric, Metric) for metric in metrics.values())
    ):
        raise SpecError(f'{name}: {kind.__name__} lacks metrics, such as metrics = {{"top1": Metric()}}')
    if unfit := [metric for metric in metrics if not WORD.fullmatch(metric)]:
        raise SpecError(f"{name}: the name of a metric is a letter, then letters, digits, - and _, not '{unfit[0]}'")
    if aimless := [metric for metric, scale in metrics.items() if scale.headline and not scale.better]:
        raise SpecError(f"{name}: {aimless[0]} is a column of tables, so say better: max or min, or headline=False")
    return kind

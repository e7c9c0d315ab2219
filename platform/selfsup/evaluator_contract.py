"""The contracts of an evaluator, checked on small random features on the CPU: `selfsup check-evaluator ./mine.py`.

Scores may depend on the order of the training samples, of which a seed may draw a part; not on that of the others.
"""

import math
import random
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import numpy as np

from selfsup.evaluator import ACCURACY, DENSE, METRIC, Evaluator, Features, Metric, Score, load, numbers
from selfsup.knob import Knobs
from selfsup.promises import need_defaults, outcome

TRAIN, VAL, DIM, TOKENS, CLASSES = 600, 30, 8, 4, 6
Kind = type[Evaluator]
Scores = dict[str, Score]


class Contract(NamedTuple):
    """A promise of evaluators. broken: how one breaks it, "" where it keeps it. unlabelled: only without a target."""

    broken: Callable[[Kind], str]
    unlabelled: bool = False


def check(name: str) -> Iterator[tuple[str, str]]:
    """Yield each contract, and how the evaluator breaks it; "" where it keeps it.

    Raises SpecError for an evaluator that cannot be loaded, or that has knobs without a default.
    """
    kind = load(name)
    need_defaults(name, kind.Hyper)
    for title, contract in CONTRACTS.items():
        if kind.target is None or not contract.unlabelled:
            yield title, outcome(contract.broken, kind)


def example(kind: Kind, *, labelled: bool = True) -> Features:
    """Return features of six classes that overlap. Without labels these are -1."""
    draw = np.random.default_rng(0)
    label = np.arange(TRAIN + VAL) % CLASSES
    choice = kind.reads_of(cheap(kind))
    vectors = (TOKENS, DIM) if choice.is_of_tokens else (choice.parts * DIM,)
    shape = _predicted(kind.target) if choice.is_predicted else vectors
    shape = (2, DIM) if choice.kind == "pairs" else shape
    centers = draw.normal(size=(CLASSES, *shape))
    value = (centers[label] + draw.normal(size=(len(label), *shape))).astype(np.float32)
    label = label if labelled else np.full_like(label, -1)
    features = Features(value[:TRAIN], label[:TRAIN], value[TRAIN:], label[TRAIN:], CLASSES if labelled else 0)
    part = value[:TRAIN] if choice.split == "train" else value[TRAIN:]
    moved = part + 0.1 * draw.normal(size=(choice.views, *part.shape)).astype(np.float32)
    features = features._replace(parts=choice.parts, views=moved if choice.views else None)
    return _with_maps(features, kind.target) if kind.target in DENSE else features


def _predicted(target: str | None) -> tuple[int, ...]:
    """Return the shape of what a trained head predicts of a sample."""
    if target == "objects":
        from selfsup.parts.objects import PACKED

        return 2, PACKED
    return (4 * TOKENS, 1) if target in DENSE else (CLASSES,)


def _with_maps(features: Features, target: str | None) -> Features:
    """Return the same with maps of 4 pixels a token, of the class of the image and the place of the token."""
    values = (np.arange(TRAIN + VAL)[:, None] + np.arange(TOKENS)) % CLASSES  # (N, T)
    side = math.isqrt(TOKENS)
    maps = values.reshape(-1, side, side).repeat(2, 1).repeat(2, 2).astype(np.int32)
    if target == "objects":
        maps = np.stack([maps, maps + 1], axis=1)
    elif target != "seg":
        maps = (maps + 1).astype(np.float32 if target in METRIC else np.int32)  # 0 is none
    return features._replace(train_map=maps[:TRAIN], val_map=maps[TRAIN:])


def cheap(kind: Kind) -> Knobs:
    """Return the knobs that contracts are checked with."""
    return kind.Hyper(**kind.cheap)


def run(kind: Kind, features: Features) -> Scores:
    return dict(kind(cheap(kind)).run(features, seed=0))


def _yields_its_metrics(kind: Kind) -> str:
    scores = run(kind, example(kind, labelled=kind.target is not None))
    shown = {name for name, metric in kind.yields(cheap(kind)).items() if metric.headline}
    missing = sorted(shown - scores.keys())
    return unfit(scores, kind.metrics, VAL) or (f"it does not yield {', '.join(missing)}" if missing else "")


def unfit(scores: Scores, metrics: Mapping[str, Metric], images: int) -> str:
    """Return why what an evaluator yields are no scores of so many validation samples; "" where they are."""
    if foreign := sorted(map(str, scores.keys() - metrics.keys())):
        return f"it yields {', '.join(foreign)}, which is not in metrics"
    wrong = [name for name, score in scores.items() if not _is_score(score, images)]
    return f"{wrong[0]} is neither a finite number nor a bool for each of {images} validation samples" if wrong else ""


def _is_score(score: object, images: int) -> bool:
    if isinstance(score, np.ndarray):
        return bool(score.shape == (images,) and score.dtype == np.bool_)
    return isinstance(score, (int, float)) and bool(np.isfinite(score))


def _is_a_function_of_the_seed(kind: Kind) -> str:
    import torch

    results = []
    for other in (1, 2):  # what others draw from the common generators
        random.seed(other)
        np.random.seed(other)
        torch.manual_seed(other)
        results.append(run(kind, example(kind, labelled=kind.target is not None)))
    first, second = map(numbers, results)
    differing = [name for name in first if first[name] != second.get(name)]
    return f"with one seed {differing[0]} is {first[differing[0]]} and {second[differing[0]]}" if differing else ""


def _changes_no_features(kind: Kind) -> str:
    features, expected = (example(kind, labelled=kind.target is not None) for _ in range(2))
    run(kind, features)
    changed = [
        name for name in Features._fields if not np.array_equal(getattr(features, name), getattr(expected, name))
    ]
    return f"it changes {', '.join(changed)}" if changed else ""


def _does_not_depend_on_order(kind: Kind) -> str:
    features = example(kind, labelled=kind.target is not None)
    order = np.random.default_rng(1).permutation(VAL)
    maps = None if features.val_map is None else features.val_map[order]
    shuffled = features._replace(val=features.val[order], val_label=features.val_label[order], val_map=maps)
    if features.views is not None and kind.reads_of(cheap(kind)).split == "val":
        shuffled = shuffled._replace(views=features.views[:, order])
    straight, turned = run(kind, features), run(kind, shuffled)
    differing = [name for name in straight if not _is_close(straight[name], turned[name], order)]
    return f"{', '.join(differing)} depends on the order of the validation samples" if differing else ""


def _is_close(straight: Score, turned: Score, order: "np.typing.NDArray[np.int64]") -> bool:
    """Return whether scores agree but for rounding: one sample, or a thousandth."""
    if isinstance(straight, np.ndarray) and isinstance(turned, np.ndarray):
        return int((straight[order] != turned).sum()) <= 1
    return bool(np.isclose(straight, turned, rtol=1e-3, atol=1e-6))


def _names_what_it_may(kind: Kind) -> str:
    """Let it name one class alone, of features between it and another: it is right, but where none votes for it.

    A float counts where it is a share of the samples that are right, in percent.
    """
    if not kind.classifies:
        return ""
    features = example(kind)
    between = 0.5 * (features.val + features.val[::CLASSES].repeat(CLASSES, 0))
    features = features._replace(val=between, val_label=0 * features.val_label)
    scores = numbers(run(kind, features._replace(among=np.arange(CLASSES) == 0)))
    return _missed(kind, scores, "it may name one class alone, which all samples are of")


def _missed(kind: Kind, scores: dict[str, float], given: str) -> str:
    """Return which accuracy is low although every guess is right; "" where none is."""
    accuracies = {name: scores[name] for name in scores if kind.metrics[name] == ACCURACY}
    missed = [f"{name} is {score:g} %" for name, score in accuracies.items() if score < 80]
    return f"{given}, and {missed[0]}" if missed else ""


def _knows_what_is_right(kind: Kind) -> str:
    """Let all classes be right of samples with wrong labels: so is every guess. Only accuracies count."""
    if not kind.classifies:
        return ""
    features = example(kind)
    wrong, right = (features.val_label + 1) % CLASSES, np.ones((VAL, CLASSES), np.bool_)
    scores = numbers(run(kind, features._replace(val_label=wrong, right=right)))
    return _missed(kind, scores, "all classes are right")


def _reads_no_labels(kind: Kind) -> str:
    with_labels, without = (numbers(run(kind, example(kind, labelled=labelled))) for labelled in (True, False))
    differing = [name for name in without if with_labels[name] != without[name]]
    return f"target is None, and labels change {', '.join(differing)}" if differing else ""


CONTRACTS = {
    "it yields its metrics and no others": Contract(_yields_its_metrics),
    "equal seeds give equal scores": Contract(_is_a_function_of_the_seed),
    "it changes no features": Contract(_changes_no_features),
    "scores follow validation samples in any order": Contract(_does_not_depend_on_order),
    "where it classifies, it names classes that it may": Contract(_names_what_it_may),
    "where it classifies, it knows of several right ones": Contract(_knows_what_is_right),
    "it needs no labels and reads none": Contract(_reads_no_labels, unlabelled=True),
}

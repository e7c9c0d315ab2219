"""Segmentation by patches against scikit-learn on all pixels, and by hand."""

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, jaccard_score
from sklearn.neighbors import KNeighborsClassifier

from selfsup import evaluator
from selfsup.bounded import bounded
from selfsup.errors import DataError
from selfsup.evals import segment_knn
from selfsup.evals.segment_knn import SegmentKNN
from selfsup.evals.segment_linear import SegmentLinear
from selfsup.evaluator import Features
from selfsup.parts import dense, softmax_regression
from selfsup.parts.dense import Patches, accuracy, confusion, held_out_images, mean_iou

GRID, CELL, DIM, CLASSES = 3, 2, 5, 4
TRAIN, VAL = 40, 12


def blown_up(tokens: NDArray[np.int64]) -> NDArray[np.int32]:
    """(N, T) -> (N, S, S)"""
    return tokens.reshape(-1, GRID, GRID).repeat(CELL, 1).repeat(CELL, 2).astype(np.int32)


def example(noise: float = 0.7) -> Features:
    """Return tokens that overlap, maps whose patches are mostly of one class, and some pixels and a patch of none."""
    draw = np.random.default_rng(0)
    label = draw.integers(0, CLASSES, (TRAIN + VAL, GRID**2))
    value = draw.normal(size=(CLASSES, DIM))[label] + noise * draw.normal(size=(*label.shape, DIM))
    maps = blown_up(label)
    swapped = draw.random(maps.shape) < 0.1
    maps[swapped] = draw.integers(-1, CLASSES, swapped.sum())
    maps[0, :CELL, :CELL] = -1
    none = np.full(TRAIN + VAL, -1)
    return Features(
        value[:TRAIN].astype(np.float32),
        none[:TRAIN],
        value[TRAIN:].astype(np.float32),
        none[TRAIN:],
        CLASSES,
        train_map=maps[:TRAIN],
        val_map=maps[TRAIN:],
    )


def cells(maps: NDArray[np.int32]) -> NDArray[np.int32]:
    """(N, S, S) -> (N T, L), a patch at a time, each cut out"""
    patches = [
        one[CELL * row : CELL * row + CELL, CELL * column : CELL * column + CELL].ravel()
        for one in maps
        for row in range(GRID)
        for column in range(GRID)
    ]
    return np.array(patches)


def modes(pixels: NDArray[np.int32]) -> NDArray[np.int64]:
    """Return the class of most pixels; -1 where most have none. Of equal ones the smallest class."""
    counts = [[*(np.sum(own == c) for c in range(CLASSES)), np.sum(own == -1)] for own in pixels]
    return np.array([-1 if place == CLASSES else place for place in np.argmax(counts, axis=1)])


def scaled(features: Features, images: torch.Tensor) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return standardised tokens of train and val, (P, D), by the moments of these training images."""
    own = features.train[images.numpy()].reshape(-1, DIM).astype(np.float64)
    mean, std = own.mean(0), np.sqrt(own.var(0) + 1e-6)
    train, val = ((part.reshape(-1, DIM) - mean) / std for part in (features.train, features.val))
    return train, val


def scores(true: NDArray[np.int32], guess: NDArray[np.int64]) -> tuple[float, float]:
    """Return scikit-learn's mean IoU and accuracy of all pixels with a class, in percent."""
    known = true >= 0
    miou = jaccard_score(true[known], guess[known], average="macro", labels=range(CLASSES))
    return 100 * miou, 100 * accuracy_score(true[known], guess[known])


def test_patches_are_cut_out_row_by_row() -> None:
    features = example()
    patches = Patches(features.train, features.train_map)
    everything = torch.arange(len(patches))
    np.testing.assert_array_equal(patches.pixels(everything).numpy(), cells(features.train_map))
    np.testing.assert_array_equal(patches.modes(everything, CLASSES).numpy(), modes(cells(features.train_map)))
    assert patches.modes(everything, CLASSES)[0] == -1
    np.testing.assert_array_equal(patches.of(torch.tensor([2, 1])).numpy(), np.arange(9, 27))


def test_mean_iou_is_worked_out_by_hand() -> None:
    true, guess = torch.tensor([[0, 0, 0, 1], [1, 2, -1, -1]]), torch.tensor([[0, 0, 1, 1], [1, -1, 3, 0]])
    counts = confusion(true, guess, 5)
    assert counts.sum() == 6
    # classes 0 and 1: 2 of 3 each; class 2: 0 of 1, guessed to be none; classes 3 and 4 neither are nor were guessed
    assert mean_iou(counts) == pytest.approx(100 * (2 / 3 + 2 / 3 + 0) / 3)
    assert accuracy(counts) == pytest.approx(100 * 4 / 6)


@pytest.mark.parametrize("noise", [0.3, 1.5])
def test_mean_iou_is_that_of_scikit_learn(noise: float) -> None:
    draw = np.random.default_rng(1)
    true = draw.integers(-1, 6, (50, 9))
    guess = np.where(draw.random(true.shape) < noise / 2, draw.integers(0, 8, true.shape), np.maximum(true, 0))
    known = true >= 0
    expected = 100 * jaccard_score(true[known], guess[known], average="macro")
    assert mean_iou(confusion(torch.tensor(true), torch.tensor(guess), 8)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("distance", "metric"), [("cosine", "cosine"), ("euclidean", "euclidean")])
@pytest.mark.parametrize("k", [1, 3, 10])
def test_votes_are_those_of_scikit_learns_neighbors(distance: str, metric: str, k: int) -> None:
    features = example()
    hyper = SegmentKNN.Hyper(ks=(k,), distances=(distance,))
    result = dict(SegmentKNN(hyper).run(features, seed=3))
    train, val = scaled(features, held_out_images(TRAIN, 3)[1])
    pixels = cells(features.train_map)
    voting = modes(pixels) >= 0
    guess = []
    for place in range(CELL**2):  # a pixel votes for those at its place
        own = np.where(pixels[voting, place] < 0, CLASSES, pixels[voting, place])
        model = KNeighborsClassifier(k, metric=metric, algorithm="brute").fit(train[voting], own)
        guess.append(model.predict(val))
    miou, share = scores(cells(features.val_map), np.stack(guess, axis=1))
    assert result["miou"] == pytest.approx(miou, abs=1e-9)
    assert result["pixels"] == pytest.approx(share, abs=1e-9)
    assert (result["k"], result["cosine"]) == (k, distance == "cosine")


@pytest.mark.parametrize("c", [0.01, 1.0])
def test_the_linear_map_is_that_of_scikit_learn(c: float) -> None:
    features = example()
    result = dict(SegmentLinear(SegmentLinear.Hyper(cs=(c,))).run(features, seed=3))
    train, val = scaled(features, held_out_images(TRAIN, 3)[1])
    label = modes(cells(features.train_map))
    model = LogisticRegression(C=c, tol=1e-10, max_iter=2000).fit(train[label >= 0], label[label >= 0])
    guess = model.predict(val)[:, None].repeat(CELL**2, axis=1)
    miou, share = scores(cells(features.val_map), guess)
    assert result["miou"] == pytest.approx(miou, abs=1e-6)
    assert result["pixels"] == pytest.approx(share, abs=1e-6)


def test_settings_are_chosen_by_the_mean_iou_of_a_tenth_of_train() -> None:
    features = example(noise=1.5)
    tenth, rest = held_out_images(TRAIN, 5)
    assert len(tenth) == math.ceil(TRAIN / 10)
    inner = features._replace(
        train=features.train[rest.numpy()],
        train_map=features.train_map[rest.numpy()],
        val=features.train[tenth.numpy()],
        val_map=features.train_map[tenth.numpy()],
    )
    train = scaled(features, rest)[0].reshape(TRAIN, GRID**2, DIM)
    label = modes(cells(inner.train_map))
    expected = {}
    for c in (1e-4, 0.01, 1.0):
        model = LogisticRegression(C=c, tol=1e-10, max_iter=2000)
        model.fit(train[rest.numpy()].reshape(-1, DIM)[label >= 0], label[label >= 0])
        guess = model.predict(train[tenth.numpy()].reshape(-1, DIM))[:, None].repeat(CELL**2, axis=1)
        expected[c] = scores(cells(inner.val_map), guess)[0]
    result = dict(SegmentLinear(SegmentLinear.Hyper(cs=tuple(expected))).run(features, seed=5))
    assert result["c"] == max(expected, key=expected.__getitem__)


@pytest.mark.parametrize("protocol", [SegmentKNN, SegmentLinear])
def test_separable_patches_are_told_apart_and_noise_is_not(protocol: type[evaluator.Evaluator]) -> None:
    features = example(noise=0.01)
    label = np.random.default_rng(7).integers(0, CLASSES, (TRAIN + VAL, GRID**2))
    own = np.eye(DIM)[label].astype(np.float32)
    clean = features._replace(
        train=own[:TRAIN], val=own[TRAIN:], train_map=blown_up(label[:TRAIN]), val_map=blown_up(label[TRAIN:])
    )
    hyper = protocol.Hyper.model_validate({"cs": (1.0,)} if protocol is SegmentLinear else {})
    assert dict(protocol(hyper).run(clean, seed=0))["miou"] == 100
    chance = dict(protocol(hyper).run(clean._replace(val=clean.val[::-1]), seed=0))
    assert chance["miou"] < 30


def test_parts_of_any_size_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    features = example()
    protocols = SegmentKNN(SegmentKNN.Hyper()), SegmentLinear(SegmentLinear.Hyper(cs=(0.01, 1.0)))
    whole = [dict(protocol.run(features, seed=0)) for protocol in protocols]
    monkeypatch.setattr(dense, "PIXELS", 64)
    monkeypatch.setattr(segment_knn, "SIMILARITIES", 50)
    monkeypatch.setattr(softmax_regression, "HELD", 600)
    parts = [dict(protocol.run(features, seed=0)) for protocol in protocols]
    for one, other in zip(whole, parts, strict=True):
        assert other == pytest.approx(one, rel=1e-6)


def test_which_of_equal_patches_vote_depends_on_no_bound() -> None:
    features = example()
    features.train[:, ::2], features.val[:, ::2] = 1.0, 1.0
    protocol = SegmentKNN(SegmentKNN.Hyper())
    whole = dict(protocol.run(features, seed=0))
    with bounded(2**-7):
        assert dict(protocol.run(features, seed=0)) == whole


def test_fewer_patches_vote_where_a_knob_says_so() -> None:
    features = example()
    train = Patches(features.train, features.train_map)
    few = SegmentKNN(SegmentKNN.Hyper(patches=50)).drawn(train, torch.arange(len(train)), CLASSES, 0)
    assert (len(few), len(few.unique())) == (50, 50)
    assert train.modes(few, CLASSES).min() >= 0
    assert 0 <= dict(SegmentKNN(SegmentKNN.Hyper(patches=2, ks=(30,))).run(features, seed=0))["miou"] < 60


@pytest.mark.parametrize("protocol", [SegmentKNN, SegmentLinear])
def test_maps_without_two_classes_are_refused(protocol: type[evaluator.Evaluator]) -> None:
    features = example()
    plain = np.where(features.train_map >= 0, 2, -1).astype(np.int32)
    with pytest.raises(DataError, match="maps of pixels show 1 classes in those of train, 4 in those of val"):
        dict(protocol(protocol.Hyper()).run(features._replace(train_map=plain), seed=0))
    assert protocol.lacks(protocol.Hyper(), 1, 0) is not None

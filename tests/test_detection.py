"""Detection on frozen tokens: its training against a plain loop, and its extremes."""

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from selfsup.errors import DataError
from selfsup.evals.detection import Detection, DetectionSet, share
from selfsup.evaluator import Features
from selfsup.parts.detector import Detector
from selfsup.parts.linear_heads import batches
from selfsup.parts.objects import objects_of

GRID, CELL, DIM, CLASSES = 4, 4, 8, 2
TRAIN, VAL = 48, 16
SIZES = {"width": 16, "anchors": (0.5, 1.0, 2.0, 3.0, 4.0), "proposals": 16, "regions": 16}
HYPER = Detection.Hyper(**SIZES, epochs=8, batch=8, lr=4e-3, warmup=5)


def example(*, told_by_tokens: bool) -> Features:
    """Return tokens of which the first channels are the class of an object of two by two tokens, or of noise alone."""
    draw = np.random.default_rng(0)
    number = TRAIN + VAL
    seg, inst = np.full((2, number, GRID, GRID), -1, np.int32)
    inst[:] = 0
    corners, classes = draw.integers(0, GRID - 1, (number, 2)), draw.integers(0, CLASSES, number)
    for place, ((row, column), label) in enumerate(zip(corners, classes, strict=True)):
        seg[place, row : row + 2, column : column + 2] = label
        inst[place, row : row + 2, column : column + 2] = 1
    value = draw.normal(size=(number, GRID, GRID, DIM)).astype(np.float32)
    if told_by_tokens:
        value[..., :CLASSES] = 4 * (seg[..., None] == np.arange(CLASSES))
    value = value.reshape(number, GRID**2, DIM)
    maps = np.stack([seg, inst], axis=1).repeat(CELL, 2).repeat(CELL, 3)
    none = np.full(number, -1)
    parts = (value[:TRAIN], none[:TRAIN], value[TRAIN:], none[TRAIN:])
    return Features(*parts, classes=CLASSES, train_map=maps[:TRAIN], val_map=maps[TRAIN:])


def scores(features: Features, hyper: Detection.Hyper = HYPER) -> dict[str, float]:
    return {name: float(score) for name, score in Detection(hyper).run(features, seed=0)}


def test_objects_that_tokens_tell_are_found_and_those_in_noise_are_not() -> None:
    clear, noise = (scores(example(told_by_tokens=own)) for own in (True, False))
    assert min(clear["ap"], clear["mask_ap"]) > 50
    assert max(noise["ap"], noise["mask_ap"]) < 10
    for result in (clear, noise):
        assert result["ap"] <= result["ap50"]
        assert result["mask_ap"] <= result["mask_ap50"]


def test_training_is_that_of_a_plain_loop() -> None:
    features = example(told_by_tokens=True)
    hyper = HYPER.model_copy(update={"epochs": 0.5, "weight_decay": 0.3, "warmup": 2})  # three steps
    value = features.train.reshape(-1, DIM).astype(np.float64)
    mean, std = value.mean(0), np.sqrt(value.var(0) + 1e-6)
    scale = (torch.tensor(mean).float(), torch.tensor(std).float())
    before = torch.get_rng_state()
    trained = Detection(hyper).fit(DetectionSet(features.train, features.train_map, *scale), CLASSES, seed=3)
    assert torch.equal(torch.get_rng_state(), before), "it draws from a generator of its own"

    torch.manual_seed(3)
    other = Detector(DIM, CLASSES, **SIZES)
    optimizer = torch.optim.AdamW(other.parameters(), lr=1.0, weight_decay=0)
    rows = batches(torch.arange(TRAIN), 8, 3, torch.Generator().manual_seed(3))
    for rate, part in zip((0.001, 0.5005, 1), rows, strict=True):
        place = part.numpy()
        tokens = (torch.tensor(features.train[place]) - scale[0]) / scale[1]
        optimizer.zero_grad()
        other.loss(tokens, [objects_of(maps) for maps in features.train_map[place]]).backward()
        optimizer.param_groups[0]["lr"] = 4e-3 * rate
        with torch.no_grad():
            for name, weight in other.named_parameters():
                layer = other.get_submodule(name.rpartition(".")[0])
                weight *= 1 if isinstance(layer, torch.nn.LayerNorm) else 1 - 0.3 * 4e-3 * rate
        optimizer.step()
    for own, weight in zip(trained.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(own, weight, rtol=1e-4, atol=1e-6)


def test_the_rate_rises_and_falls_as_in_the_authors_configuration() -> None:
    total = 184375
    steps = 0, 125, 250, 163888, 163889, 177547, 184374
    rates = [share(step, total, 250) for step in steps]
    assert rates == pytest.approx([0.001, 0.5005, 1, 1, 0.1, 0.01, 0.01])
    assert share(0, total, 0) == 1


def test_published_defaults() -> None:
    hyper = Detection.Hyper()
    assert (hyper.width, hyper.proposals, hyper.regions, hyper.batch) == (256, 1000, 512, 64)
    assert [16 * side for side in hyper.anchors] == [32, 64, 128, 256, 512], "pixels at patches of 16"
    with pytest.raises(ValidationError, match="at least 5 items"):
        Detection.Hyper(anchors=(1.0, 2.0))


def test_what_shows_no_object_of_a_class_cannot_be_scored() -> None:
    features = example(told_by_tokens=True)
    seg = np.stack([features.val_map[:, 0] * 0 - 1, features.val_map[:, 1]], axis=1)
    with pytest.raises(DataError, match="no image of val shows an object that has a class"):
        scores(features._replace(val_map=seg))
    with pytest.raises(DataError, match="no image of train shows an object that has a class"):
        scores(features._replace(train_map=features.train_map * 0))


def test_one_that_diverges_is_told() -> None:
    with pytest.raises(DataError, match="the detector diverged; set a smaller lr"):
        scores(example(told_by_tokens=True), HYPER.model_copy(update={"lr": 1e30, "epochs": 0.5, "warmup": 0}))

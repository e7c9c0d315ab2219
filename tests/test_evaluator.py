"""The registry of protocols, and what none of them accepts."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from elsewhere import PLACE, elsewhere

import selfsup.evals
from selfsup import evaluator
from selfsup.bounded import bounded
from selfsup.errors import DataError
from selfsup.evaluator import Features
from selfsup.evaluator_contract import cheap, example
from selfsup.parts.objects import PACKED

GOOD = Features(
    np.ones((4, 2), np.float32), np.array([0, 1, 0, 1]), np.ones((2, 2), np.float32), np.array([0, 1]), classes=2
)
LABELLED = [name for name in evaluator.names() if evaluator.load(name).target == "class"]
SHORT = {"epochs": 1, "steps": 2, "iterations": 5, "cs": (0.1, 10.0)}
IN_NUMPY = {  # features and predictions, which tasks of their own have made on a device before
    "attention",
    "depth_decoded",
    "depth_finetune",
    "detection_finetune",
    "discovery",
    "finetune",
    "segment_decoded",
    "segment_finetune",
    "semi",
    "zero_shot",
}


def test_the_folder_is_the_registry() -> None:
    files = {path.stem for path in Path(selfsup.evals.__path__[0]).glob("*.py")} - {"__init__"}
    assert set(evaluator.names()) == files
    for name in evaluator.names():
        assert issubclass(evaluator.load(name), evaluator.Evaluator)


READ = """
import sys
from selfsup import evaluator
for name in evaluator.names():
    evaluator.load(name).Hyper()
    assert "torch" not in sys.modules, name
"""


def test_reading_protocols_imports_no_torch() -> None:
    """All of them after one another, and so none of them alone."""
    subprocess.run([sys.executable, "-c", READ], check=True)


@pytest.mark.parametrize("name", evaluator.names())
def test_a_protocol_is_a_function_of_features_and_seed_in_parts_of_any_size(name: str) -> None:
    """8 KiB are three rows of the cosines of kNN, and the logits of 170 samples."""
    draw = np.random.default_rng(0)
    protocol = evaluator.load(name)
    hyper = cheap(protocol)
    reads = protocol.reads_of(hyper)
    shape = (4, 5) if reads.is_of_tokens else (5 * reads.parts,)
    if reads.is_predicted:
        shape = {"class": (6,), "objects": (2, PACKED)}.get(protocol.target, (4, 1))
    if reads.kind == "pairs":
        shape = (2, 5)
    value = draw.normal(size=(620, *shape)).astype(np.float32)
    label = draw.integers(0, 6, 620)
    whole = value[:600] if reads.split == "train" else value[600:]
    views = whole + draw.normal(size=(reads.views, *whole.shape)).astype(np.float32)
    maps = np.broadcast_to(label[:, None, None], (620, 2, 2)).astype(np.int32)
    maps = np.stack([maps, maps], axis=1) if protocol.target == "objects" else maps
    features = Features(value[:600], label[:600], value[600:], label[600:], 6, maps[:600], maps[600:])
    features = features._replace(parts=reads.parts, views=views if reads.views else None)
    first, second = (dict(protocol(hyper).run(features, seed=3)) for _ in range(2))
    np.testing.assert_equal(first, second)
    with bounded(2**-7):
        parts = dict(protocol(hyper).run(features, seed=3))
    assert evaluator.numbers(parts) == pytest.approx(evaluator.numbers(first), rel=1e-4)
    assert first.keys() == protocol.yields(hyper).keys()
    assert {protocol.metrics[name].unit for name, score in first.items() if isinstance(score, np.ndarray)} <= {"%"}
    shown = [metric for metric in protocol.metrics.values() if metric.headline]
    assert shown
    assert all(metric.better for metric in shown), "a table must know which way is up"
    for metric, value in evaluator.numbers(first).items():
        low, high = protocol.metrics[metric].ends
        assert low <= value <= high
    assert {value.shape for value in first.values() if isinstance(value, np.ndarray)} <= {(20,)}


@pytest.mark.parametrize("name", sorted({*evaluator.names()} - IN_NUMPY))
def test_a_protocol_computes_on_the_device_that_it_is_given_what_the_cpu_computes(name: str) -> None:
    kind = evaluator.load(name)
    usual = kind.Hyper()
    short = {knob: value for knob, value in SHORT.items() if type(getattr(usual, knob, None)) is type(value)}
    protocol = kind(kind.Hyper(**kind.cheap | short))
    features = example(kind, labelled=kind.target is not None)
    if kind.target in evaluator.DENSE:
        few = {name: getattr(features, name)[:30] for name in ("train", "train_label", "train_map")}
        features = features._replace(**few)
    here = dict(protocol.run(features, seed=0))
    with elsewhere() as operations:
        there = dict(protocol.run(features, seed=0, device=PLACE))
    assert evaluator.numbers(there) == pytest.approx(evaluator.numbers(here), rel=1e-3)
    assert operations.number


@pytest.mark.parametrize("name", evaluator.names())
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"val": np.array([[1, np.nan], [1, 1]], np.float32)}, "1 of 2 val features are not finite"),
        ({"train": np.full((4, 2), np.inf, np.float32)}, "4 of 4 train features are not finite"),
        ({"val": np.ones((0, 2), np.float32), "val_label": np.array([], np.int64)}, "no val sample has .*that decodes"),
    ],
)
def test_no_number_is_made_of_bad_features(name: str, wrong: dict[str, np.ndarray], message: str) -> None:
    protocol, features = evaluator.load(name), GOOD._replace(**wrong)
    if protocol.reads == "tokens":
        features = features._replace(train=features.train[:, None], val=features.val[:, None])
    if protocol.target in evaluator.DENSE:
        maps = np.arange(4).repeat(4).reshape(4, 2, 2)
        features = features._replace(train_map=maps, val_map=maps[: len(features.val)])
    with pytest.raises(DataError, match=message):
        dict(protocol(protocol.Hyper()).run(features, seed=0))


@pytest.mark.parametrize("name", LABELLED)
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"train_label": np.array([0, 1, -1, 1])}, "train labels must be 0 to 1, found -1 to 1"),
        ({"val_label": np.array([0, 2])}, "val labels must be 0 to 1, found 0 to 2"),
        ({"train_label": np.array([1, 1, 1, 1])}, "every guess would be class 1, the only one of 4 labelled train"),
    ],
)
def test_no_number_is_made_of_bad_labels(name: str, wrong: dict[str, np.ndarray], message: str) -> None:
    test_no_number_is_made_of_bad_features(name, wrong, message)


def test_features_that_are_checked_in_parts_are_counted_as_in_one(monkeypatch: pytest.MonkeyPatch) -> None:
    value = np.ones((7, 2, 3), np.float32)
    value[[0, 3, 6], 1, [0, 1, 2]] = np.nan, np.inf, -np.inf
    monkeypatch.setattr(evaluator, "CHECKED", 12)
    with pytest.raises(DataError, match="3 of 7 train features are not finite"):
        evaluator.check(Features(value, np.arange(7) % 2, value[1:3], np.array([0, 1]), classes=2))

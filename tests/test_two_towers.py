"""Evaluations of two towers, and specs that ask for them."""

from pathlib import Path

import numpy as np
import pytest
import torch

from selfsup.errors import SpecError
from selfsup.evals.caption_retrieval import CaptionRetrieval
from selfsup.evals.cross_retrieval import CrossRetrieval
from selfsup.evals.zero_shot import ZeroShot
from selfsup.evaluator import Features
from selfsup.ranking import recalls
from selfsup.spec import read

NONE = np.empty((0, 6), np.float32), np.empty(0, np.int64)


def scores(kind: type, value: np.ndarray, label: np.ndarray, classes: int) -> dict[str, float]:
    features = Features(*NONE, value.astype(np.float32), label, classes)
    return {
        name: float(100 * np.mean(score)) if isinstance(score, np.ndarray) else score
        for name, score in kind(kind.Hyper()).run(features, seed=0)
    }


def test_the_class_of_the_most_similar_prompts_is_named() -> None:
    cosines = np.array([[0.9, 0.1, 0.2, 0, 0, 0], [0.1, 0.2, 0.3, 0, 0, 0.5], [0.9, 0.8, 0.7, 0.6, 0.5, 0.4]])
    assert scores(ZeroShot, cosines, np.array([0, 2, 5]), 6) == {
        "top1": pytest.approx(100 / 3),
        "top5": pytest.approx(200 / 3),
    }


def test_recall_is_that_of_sorted_similarities() -> None:
    draw = np.random.default_rng(0)
    sample = draw.normal(size=(40, 5))
    text = sample + 0.7 * draw.normal(size=(40, 5))
    unit_a, unit_b = (part / np.linalg.norm(part, axis=1, keepdims=True) for part in (sample, text))
    found = scores(CaptionRetrieval, np.stack([sample, text], 1), np.full(40, -1), 0)
    for kind, similarity in (("text", unit_a @ unit_b.T), ("sample", unit_b @ unit_a.T)):
        order = np.argsort(-similarity, axis=1)
        for k in (1, 5, 10):
            expected = 100 * np.mean([number in row[:k] for number, row in enumerate(order)])
            assert found[f"{kind}_recall{k}"] == pytest.approx(expected), (kind, k)


def test_any_two_modalities_are_retrieved_as_captions_are() -> None:
    pair = np.random.default_rng(1).normal(size=(30, 2, 5))
    there, back = (scores(CrossRetrieval, one, np.full(30, -1), 0) for one in (pair, pair[:, ::-1]))
    captions = scores(CaptionRetrieval, pair, np.full(30, -1), 0)
    for k in (1, 5, 10):
        assert there[f"second_recall{k}"] == back[f"first_recall{k}"] == captions[f"text_recall{k}"]
        assert there[f"first_recall{k}"] == back[f"second_recall{k}"] == captions[f"sample_recall{k}"]
    choice = CrossRetrieval.reads_of(CrossRetrieval.Hyper(between=("audio", "text")))
    assert (choice.kind, choice.between) == ("pairs", ("audio", "text"))
    with pytest.raises(ValueError, match="expected two modalities, not audio twice"):
        CrossRetrieval.Hyper(between=("audio", "audio"))


def test_pairs_that_a_head_scored_are_ranked_both_ways() -> None:
    """Of 12 samples and 15 captions, three of which are of samples that cannot be read."""
    draw = np.random.default_rng(2)
    own, pairs = draw.permutation(15)[:12], draw.normal(size=(12, 15))
    pairs[np.arange(12), own] += 1
    value = np.concatenate([own[:, None], pairs], axis=1).astype(np.float32)
    evaluator = CaptionRetrieval(CaptionRetrieval.Hyper(by="head", samples=15))
    found = dict(evaluator.run(Features(*NONE, value, np.full(12, -1), 0), seed=0))
    for k in (1, 5, 10):
        text = [place in np.argsort(-row)[:k] for place, row in zip(own, pairs, strict=True)]
        sample = [number in np.argsort(-pairs[:, place])[:k] for number, place in enumerate(own)]
        assert found[f"text_recall{k}"] == pytest.approx(100 * np.mean(text))
        assert found[f"sample_recall{k}"] == pytest.approx(100 * np.mean(sample))
    choice = evaluator.reads_of(evaluator.hyper)
    assert (choice.kind, choice.whole.images, choice.identity) == ("matched", 15, {"reads": "matched", "images": 15})


def test_equal_captions_share_a_place_and_equal_features_are_chance() -> None:
    same = torch.nn.functional.normalize(torch.ones(20, 4), dim=1)
    assert recalls(same, same) == pytest.approx([1 / 20, 5 / 20, 10 / 20])
    text = torch.eye(4)[[0, 0, 1, 2]]
    assert recalls(torch.eye(4)[[0, 0, 1, 2]], text) == pytest.approx([(0.5 + 0.5 + 1 + 1) / 4, 1.0, 1.0])


def spec(folder: Path, method: str, more: str) -> Path:
    path = folder / "mine.yaml"
    path.write_text(
        f"name: mine\nmethod: {method}\ndata: {{train: a, val: b}}\n"
        f"train: {{duration: {{steps: 2}}, batch: 8}}\n{more}\n"
    )
    return path


@pytest.mark.parametrize(
    ("method", "more", "message"),
    [
        ("mae", "input: {text: {}}", "mae reads no text beside its samples; leave it out"),
        ("clip", "input: {text: {width: 30}}", "30 channels .width. do not divide over 8 heads"),
        ("clip", "evals: {zero_shot: {templates: [a photo]}}", "expected {} in place of a class's name, in 'a photo'"),
        ("clip", "backbone: {name: resnet18}\nhyper: {mask_ratio: 0.5}", "resnet18 is none; leave it out"),
        ("clip", "input: {audio: {}, video: {}}", "the backbone of a run reads one kind of data, not audio and video"),
    ],
)
def test_what_a_spec_of_two_modalities_cannot_ask(tmp_path: Path, method: str, more: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        read(spec(tmp_path, method, more))


def test_text_beside_images_is_no_modality_of_the_backbone(tmp_path: Path) -> None:
    read_spec = read(spec(tmp_path, "clip", "input: {text: {length: 16}}"))
    assert (read_spec.modality, read_spec.beside) == ("image", ("text",))
    assert read(spec(tmp_path, "clip", "")).input.text is None
